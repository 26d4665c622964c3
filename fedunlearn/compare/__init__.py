"""Methods, seeds and topologies beside one another: families trained once, every method on a copy, one table."""

from fedunlearn.compare.asked import Choice as Choice, Subject as Subject, choices_of as choices_of, requests_of as requests_of
from fedunlearn.compare.cells import pooled as pooled
from fedunlearn.compare.files import as_csv as as_csv, rows_of as rows_of, write as write
from fedunlearn.compare.origin import origin as origin
from fedunlearn.compare.run import (
    compare as compare,
    failed_everywhere as failed_everywhere,
    older as older,
    planned as planned,
)
from fedunlearn.compare.table import (
    Table as Table,
    about as about,
    details as details,
    legend as legend,
    notes as notes,
    overview as overview,
    percent as percent,
)
