"""Federations whose rounds Flower runs. The only place in training that knows Flower; it is an extra."""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

try:
    from flwr.serverapp.strategy import FedAdam as _FedAdam  # noqa: F401
except ImportError as error:
    from fedunlearn.errors import InputError

    raise InputError(f'Flower cannot be imported ({error}); install it: pip install "fedunlearn[flower]"') from error

from fedunlearn.training.flower.federated import federated_flower as federated_flower
from fedunlearn.training.flower.grid import LocalGrid as LocalGrid
from fedunlearn.training.flower.recorded import Recorder as Recorder, tell as tell
