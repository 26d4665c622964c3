"""Inputs of the last layer, kept; they are in `evaluation`, where probes read them too."""

from fedunlearn.evaluation.features import features as features
from fedunlearn.evaluation.features import last_layer as last_layer
