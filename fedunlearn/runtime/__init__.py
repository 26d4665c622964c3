"""Carrying a request to where the data and the weights are, and back."""

from fedunlearn.runtime.backend import Answerer as Answerer
from fedunlearn.runtime.backend import Backend as Backend
from fedunlearn.runtime.backend import InProcess as InProcess
from fedunlearn.runtime.backend import Split as Split
from fedunlearn.runtime.bank import bank as bank
from fedunlearn.runtime.coordinator import unlearn as unlearn
from fedunlearn.runtime.family import Family as Family
from fedunlearn.runtime.record import Record as Record
from fedunlearn.runtime.reference import Reference as Reference
from fedunlearn.runtime.resume import resume as resume
from fedunlearn.runtime.resume import waiting as waiting
from fedunlearn.runtime.resume import waiting_plan as waiting_plan
from fedunlearn.runtime.scoring import gone_from as gone_from
from fedunlearn.runtime.scoring import score_all as score_all
from fedunlearn.runtime.settle import behind as behind
from fedunlearn.runtime.settle import in_force as in_force
from fedunlearn.runtime.settle import rollback as rollback
from fedunlearn.runtime.settle import settle as settle
from fedunlearn.runtime.worker import Worker as Worker
