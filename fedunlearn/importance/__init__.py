"""What weights matter to which data, measured exactly and so that it adds up across batches, sites and ranks."""

from fedunlearn.importance.fisher import STATISTICS as STATISTICS, by_class as by_class, measure as measure
from fedunlearn.importance.forward import fits as fits
from fedunlearn.importance.importance import Importance as Importance, merge as merge, pool as pool
from fedunlearn.importance.losses import LOSSES as LOSSES, Loss as Loss, to_mask as to_mask
