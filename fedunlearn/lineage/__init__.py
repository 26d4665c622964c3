"""Reasoning over names: which models come from which, what a request touches, what each heir should look like after."""

from fedunlearn.lineage.discover import (
    discover as discover,
    narrowed as narrowed,
    rows_of as rows_of,
    unaccounted as unaccounted,
)
from fedunlearn.lineage.fold import alike as alike, chained as chained
from fedunlearn.lineage.graph import Lineage as Lineage, ordered as ordered
from fedunlearn.lineage.model import BIRTHS as BIRTHS, Model as Model, Shard as Shard
from fedunlearn.lineage.plan import (
    ABSENT as ABSENT,
    AS_RETRAINED as AS_RETRAINED,
    NOT_EXPRESSIBLE as NOT_EXPRESSIBLE,
    Heir as Heir,
    Plan as Plan,
    Point as Point,
)
from fedunlearn.lineage.request import Request as Request, utc_today as utc_today
