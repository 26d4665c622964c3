"""Methods, seeds and topologies beside one another: families trained once, every method on a copy, one table."""

from fedunlearn.compare.asked import Choice as Choice
from fedunlearn.compare.asked import Subject as Subject
from fedunlearn.compare.asked import choices_of as choices_of
from fedunlearn.compare.asked import requests_of as requests_of
from fedunlearn.compare.cells import pooled as pooled
from fedunlearn.compare.files import as_csv as as_csv
from fedunlearn.compare.files import rows_of as rows_of
from fedunlearn.compare.files import write as write
from fedunlearn.compare.origin import origin as origin
from fedunlearn.compare.run import compare as compare
from fedunlearn.compare.run import failed_everywhere as failed_everywhere
from fedunlearn.compare.run import planned as planned
from fedunlearn.compare.table import Table as Table
from fedunlearn.compare.table import about as about
from fedunlearn.compare.table import details as details
from fedunlearn.compare.table import legend as legend
from fedunlearn.compare.table import notes as notes
from fedunlearn.compare.table import overview as overview
from fedunlearn.compare.table import percent as percent
