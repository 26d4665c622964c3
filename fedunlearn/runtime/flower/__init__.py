"""Places as Flower clients: one coarse message a place and round, over any Grid. Needs `pip install "fedunlearn[flower]"`."""

import fedunlearn.training.flower  # noqa: F401  # first: it says what to install where Flower is missing, and turns telemetry off
from fedunlearn.runtime.flower.backend import Flower as Flower
from fedunlearn.runtime.flower.client import add_handlers as add_handlers, client_app as client_app
