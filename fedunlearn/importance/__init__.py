"""What weights matter to which data, measured exactly and so that it adds up across batches, sites and ranks."""

from fedunlearn.importance.fisher import by_class as by_class
from fedunlearn.importance.fisher import measure as measure
from fedunlearn.importance.forward import fits as fits
from fedunlearn.importance.importance import Importance as Importance
from fedunlearn.importance.importance import merge as merge
from fedunlearn.importance.importance import pool as pool
from fedunlearn.importance.losses import LOSSES as LOSSES
from fedunlearn.importance.losses import Loss as Loss
