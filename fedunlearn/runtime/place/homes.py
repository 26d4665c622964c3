"""What lies at an heir's home, for the few methods that train there."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import nn

from fedunlearn.data import Rows, SiteData
from fedunlearn.errors import SiteError
from fedunlearn.methods.base import Home
from fedunlearn.runtime.tasks import Apply, Lot
from fedunlearn.tensors import Head


def home_of(task: Apply, data: Mapping[str, SiteData], net: nn.Module, head: Head) -> Home:
    """The net and the rows that a task names; rows to be forgotten are no part of what is retained.

    Args:
        task: names the lots.
        data: by site, as far as it is here.
        net: the heir.
        head: its outputs.

    Raises:
        SiteError: rows lie elsewhere.
    """
    forgotten, retained = ([_rows(lot, data) for lot in lots] for lots in (task.forgotten, task.retained))
    gone: dict[tuple[str, str], set[str]] = {}
    for lot, rows in zip(task.forgotten, forgotten, strict=True):
        gone.setdefault((lot.site, lot.shard), set()).update(rows.keys)
    kept = [rows.but(gone.get((lot.site, lot.shard), ())) for lot, rows in zip(task.retained, retained, strict=True)]
    return Home(deepcopy(net), _together(forgotten, head), _together(kept, head))


def _rows(lot: Lot, data: Mapping[str, SiteData]) -> Rows:
    """Rows of a lot, without those that were excluded before."""
    if lot.site not in data:
        raise SiteError(f"rows of {lot.site}/{lot.shard} are needed here and do not leave {lot.site}")
    held = data[lot.site]
    return held.exclusions.keep(lot.shard, held.selected(lot.shard, lot.selection))


def _together(parts: Sequence[Rows], head: Head) -> Rows:
    """Rows of several sites as one, in the head's classes; keys may repeat between sites and are numbered anew."""
    named = [p.for_head(head.classes) for p in parts if len(p)]
    if not named:
        return Rows.empty(head.classes)
    x, y = torch.cat([p.x for p in named]), torch.cat([p.y for p in named])
    return Rows(x, y, tuple(map(str, range(len(y)))), tuple(head.classes))
