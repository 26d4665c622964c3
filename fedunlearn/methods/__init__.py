"""Ways to edit a model so that it forgets. One file a method; the whole menu is `METHODS`."""

from fedunlearn.methods.base import Case as Case
from fedunlearn.methods.base import Evidence as Evidence
from fedunlearn.methods.base import Method as Method
from fedunlearn.methods.base import Want as Want
from fedunlearn.methods.calibration import Choice as Choice
from fedunlearn.methods.calibration import calibrate as calibrate
from fedunlearn.methods.fiun import FIUn as FIUn
from fedunlearn.methods.logit_mask import LogitMask as LogitMask
from fedunlearn.methods.menu import METHODS as METHODS
from fedunlearn.methods.menu import make as make
from fedunlearn.methods.steer import Steer as Steer
