"""Nets by name, or by the user's own factory."""

from fedunlearn.nets.build import (
    NETS as NETS,
    MakeNet as MakeNet,
    build as build,
    gives_logits as gives_logits,
    head_of as head_of,
    load as load,
    replace_head as replace_head,
    weights_of as weights_of,
)
from fedunlearn.nets.checkpoint import fit_to as fit_to, read_checkpoint as read_checkpoint
from fedunlearn.nets.forward import batches as batches, device_of as device_of
