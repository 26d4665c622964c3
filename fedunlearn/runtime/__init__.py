"""Carrying a request to where the data and the weights are, and back."""

from fedunlearn.runtime.backend import (
    Answerer as Answerer,
    Backend as Backend,
    InProcess as InProcess,
    Progress as Progress,
    Split as Split,
)
from fedunlearn.runtime.bank import bank as bank
from fedunlearn.runtime.books.cases import cases as cases, changed_by as changed_by, names_of as names_of
from fedunlearn.runtime.books.family import Family as Family
from fedunlearn.runtime.books.keeping import needed as needed, pending as pending, sealed_away as sealed_away
from fedunlearn.runtime.books.origins import STATES as STATES, origins as origins
from fedunlearn.runtime.books.record import Record as Record
from fedunlearn.runtime.books.tried import remaining as remaining, waiting as waiting
from fedunlearn.runtime.coordinator import unlearn as unlearn
from fedunlearn.runtime.depart import depart as depart, lost_with as lost_with
from fedunlearn.runtime.fsck import fsck as fsck
from fedunlearn.runtime.place.check import barred_at as barred_at, check_site as check_site, models_at as models_at
from fedunlearn.runtime.place.worker import Worker as Worker
from fedunlearn.runtime.reference import Reference as Reference
from fedunlearn.runtime.resume import resume as resume, waiting_plan as waiting_plan
from fedunlearn.runtime.scoring import gone_from as gone_from, score_all as score_all
from fedunlearn.runtime.seal import (
    catch_up as catch_up,
    collect as collect,
    erase_sealed as erase_sealed,
    owed as owed,
    seal as seal,
    sealable as sealable,
    still_there as still_there,
)
from fedunlearn.runtime.settle import (
    alone as alone,
    behind as behind,
    cut as cut,
    excluded as excluded,
    refuse_cut as refuse_cut,
    rollback as rollback,
    settle as settle,
    still_excluded as still_excluded,
    undoable as undoable,
)
from fedunlearn.runtime.witnesses import (
    confirmed as confirmed,
    elsewhere as elsewhere,
    remarks as remarks,
    rests_on as rests_on,
    unwitnessed as unwitnessed,
)
