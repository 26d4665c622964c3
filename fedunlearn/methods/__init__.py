"""Ways to edit a model so that it forgets. One file a method; the whole menu is `METHODS`."""

from fedunlearn.methods.base import (
    FORGOTTEN_AT_HEIRS as FORGOTTEN_AT_HEIRS,
    HEIRS_AT_ROOTS as HEIRS_AT_ROOTS,
    NEEDS as NEEDS,
    RETAINED_AT_HEIRS as RETAINED_AT_HEIRS,
    Case as Case,
    Evidence as Evidence,
    Home as Home,
    Method as Method,
    Strength as Strength,
    Unguided as Unguided,
    Want as Want,
)
from fedunlearn.methods.calibration import Choice as Choice, calibrate as calibrate
from fedunlearn.methods.fiun import FIUn as FIUn
from fedunlearn.methods.logit_mask import LogitMask as LogitMask
from fedunlearn.methods.menu import METHODS as METHODS, make as make
from fedunlearn.methods.steer import Steer as Steer
