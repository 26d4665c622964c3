"""How models are born: one loop, and one file a kind of birth."""

from fedunlearn.training.base import Born as Born, Portion as Portion, Recipe as Recipe, seed_of as seed_of
from fedunlearn.training.course import Course as Course
from fedunlearn.training.distributed import distributed as distributed
from fedunlearn.training.federated import (
    federated as federated,
    in_rounds as in_rounds,
    kept_rounds as kept_rounds,
    train_here as train_here,
)
from fedunlearn.training.fit import fit as fit
from fedunlearn.training.incremental import Anchor as Anchor, grow_head as grow_head, incremental as incremental
from fedunlearn.training.start import start_of as start_of
from fedunlearn.training.strategies import STRATEGIES as STRATEGIES
from fedunlearn.training.transfer import transfer as transfer
