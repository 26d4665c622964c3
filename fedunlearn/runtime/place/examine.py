"""What an heir's home finds when it evaluates an edit of it: on its own rows, out of its own store."""

from collections.abc import Collection

from torch import nn

from fedunlearn.data import SiteData
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Effort, Material, Nets, evaluate
from fedunlearn.methods import Case, LogitMask
from fedunlearn.methods.base import Evidence
from fedunlearn.nets import MakeNet, load
from fedunlearn.runtime.place.shadowing import audit_effort
from fedunlearn.runtime.tasks import Evaluate, Evaluated, Fetched
from fedunlearn.store import Store, Version
from fedunlearn.tensors import Head, Tensors

QUICK = 2_000  # rows of each set, at most: an accuracy to 2 points, in the time of a few of the passes that calibration takes


def examine(task: Evaluate, data: SiteData, store: Store, make_net: MakeNet, device: str) -> Evaluated:
    """Take the metrics of one tier.

    Args:
        task: what is asked.
        data: of the place.
        store: of the place; holds the versions that did not come along.
        make_net: makes nets of the family's architectures.
        device: where to compute.

    Raises:
        InputError: there is no such tier, version or shard here, or a retrained model has other outputs.
        ShapeError: a net's outputs are NaN or infinite.
    """
    before, after = store.read(task.before), store.read(task.after)

    def fresh(seed: int = 0) -> nn.Module:
        return make_net(len(before.head.classes), before.net, seed)

    def net_of(found: Fetched | Version) -> nn.Module:
        return load(fresh(), found.weights).to(device).eval()

    again = [task.sent.get(version) or store.read(version) for version in task.retrained]
    for name, other in zip(("after", *task.retrained), (after, *again), strict=True):
        if other.head != before.head:
            raise InputError(
                f"evaluation: {name[:12]} has outputs {list(other.head.classes)}, before {list(before.head.classes)}"
            )
    about = task.question
    plain = masked(before.weights, before.head, about.classes)
    mask = None if plain is None else net_of(Fetched(plain, before.head, before.net))
    nets = Nets(before.head, net_of(before), net_of(after), tuple(map(net_of, again)), mask)
    shards = {**dict.fromkeys(about.selections, ()), **dict(task.own_shards)}
    rows = Material.at(data, before.head, about.classes, about.selections, shards=shards, gone=about.gone)
    effort = Effort(most=QUICK) if task.tier == "quick" else Effort()
    if task.tier == "audit" and task.audit is not None:
        effort = audit_effort(task.audit, rows, before.head, fresh, store.folder, device)
    return Evaluated(task.before, task.after, evaluate(task.tier, nets, rows, effort))


def masked(weights: Tensors, head: Head, classes: Collection[str]) -> Tensors | None:
    """The logit mask's weights; None where there is no class to mask, or no way to."""
    try:
        return LogitMask().edit(weights, Case((), Evidence(), head, tuple(classes)), {}) if classes else None
    except InputError:  # all outputs, or no bias to mask with
        return None
