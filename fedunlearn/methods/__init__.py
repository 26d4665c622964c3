"""Ways to edit a model so that it forgets. One file a method; the whole menu is `METHODS`."""

from fedunlearn.methods.base import Case as Case, Evidence as Evidence, Method as Method, Want as Want
from fedunlearn.methods.calibration import Choice as Choice, calibrate as calibrate
from fedunlearn.methods.fiun import FIUn as FIUn
from fedunlearn.methods.logit_mask import LogitMask as LogitMask
from fedunlearn.methods.menu import METHODS as METHODS, make as make
from fedunlearn.methods.steer import Steer as Steer
