"""Nets by name, or by the user's own factory."""

from fedunlearn.nets.build import NETS as NETS
from fedunlearn.nets.build import build as build
from fedunlearn.nets.build import gives_logits as gives_logits
from fedunlearn.nets.build import head_of as head_of
from fedunlearn.nets.build import load as load
from fedunlearn.nets.build import replace_head as replace_head
from fedunlearn.nets.build import weights_of as weights_of
from fedunlearn.nets.checkpoint import fit_to as fit_to
from fedunlearn.nets.checkpoint import read_checkpoint as read_checkpoint
from fedunlearn.nets.forward import batches as batches
from fedunlearn.nets.forward import device_of as device_of
