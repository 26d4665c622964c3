"""Reasoning over names: which models come from which, what a request touches, what each heir should look like after."""

from fedunlearn.lineage.discover import discover as discover
from fedunlearn.lineage.discover import narrowed as narrowed
from fedunlearn.lineage.discover import rows_of as rows_of
from fedunlearn.lineage.discover import unaccounted as unaccounted
from fedunlearn.lineage.fold import alike as alike
from fedunlearn.lineage.fold import chained as chained
from fedunlearn.lineage.graph import Lineage as Lineage
from fedunlearn.lineage.graph import ordered as ordered
from fedunlearn.lineage.model import BIRTHS as BIRTHS
from fedunlearn.lineage.model import Model as Model
from fedunlearn.lineage.model import Shard as Shard
from fedunlearn.lineage.plan import ABSENT as ABSENT
from fedunlearn.lineage.plan import AS_RETRAINED as AS_RETRAINED
from fedunlearn.lineage.plan import NOT_EXPRESSIBLE as NOT_EXPRESSIBLE
from fedunlearn.lineage.plan import Heir as Heir
from fedunlearn.lineage.plan import Plan as Plan
from fedunlearn.lineage.plan import Point as Point
from fedunlearn.lineage.request import Request as Request
