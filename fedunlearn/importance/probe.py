"""What one or two samples show of a net: whether rules hold for it, what a sample keeps, whether samples see each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from fedunlearn.errors import ShapeError
from fedunlearn.importance.folds import Fold
from fedunlearn.importance.losses import Custom
from fedunlearn.importance.passes import Run, by_loop, in_half, outputs_of
from fedunlearn.importance.tape import CHECKPOINTED, parameters_of

ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}  # how far numbers may be apart, relatively, by rounding alone
COARSE = 5e-2  # the same in half precision, and between ways of adding up
COARSEST = 0.2  # the same between ways of adding up in half precision
UNSEEN = 1e-4  # gradients so much smaller than the largest are rounding, as those of a bias before a normalisation are
OVERHEAD = 1.5  # what a backward pass holds, over what the forward pass kept for it


@dataclass
class Probe:
    """What one sample alone showed of a net.

    Args:
        left: parameters that no rule fits, or for which rules give something else than plain differentiation, and why.
        recurrent: of those, weights of recurrent layers.
        independent: whether outputs were seen not to move with the other samples of a batch.
        bytes: what another sample keeps for the backward pass; 0 until there was another.
    """

    left: Mapping[str, str] = field(default_factory=dict)
    recurrent: frozenset[str] = frozenset()
    independent: bool = False
    bytes: int = 0

    @property
    def through(self) -> bool:
        """Whether some parameter's gradient needs one of what comes before it, wanted or not."""
        return CHECKPOINTED in self.left.values()


_probes: "WeakKeyDictionary[nn.Module, dict[object, Probe]]" = WeakKeyDictionary()
_SPREAD = Custom(lambda out, _: out @ torch.linspace(1, 2, out.shape[1], dtype=out.dtype, device=out.device))


def probe_of(net: nn.Module, x: Tensor, wanted: frozenset[str], fold: Fold, autocast: torch.dtype | None = None) -> Probe:
    """One sample alone, by the rules and by plain differentiation; once for a net as it is put together now.

    A leading axis that is 1 here and N later is the sample axis, whatever else has N entries by chance. The rules see what
    passes through torch's functions; what does not (compiled code, say) is why they are not trusted unseen.

    Args:
        net: in eval mode, frozen.
        x: inputs [N, ...], at least one.
        wanted: names of parameters.
        fold: what is summed.
        autocast: as for `sums_of`.

    Raises:
        ShapeError: outputs are not [N, C].
    """
    key = (tuple(map(id, net.modules())), tuple(x.shape[1:]), x.dtype, wanted, autocast)
    kept = _probes.setdefault(net, {})
    if key not in kept:
        run = Run(net, parameters_of(net), wanted, fold, _SPREAD, autocast)
        try:
            found, out = run(x[:1], None)
        except CheckpointError:
            found, out, run.left = {}, x[:0], dict.fromkeys(wanted, CHECKPOINTED)
        through = CHECKPOINTED in run.left.values()
        truth = by_loop(net, x[:1], None, _SPREAD, fold, tuple(wanted), through, autocast)
        least = UNSEEN**fold.power * max((float(t.norm()) for t in truth.values()), default=0.0)
        near = COARSE if out.dtype in ROUNDING and autocast is None else COARSEST
        for name in truth.keys() - run.left.keys():
            off = found[name].double() - truth[name] if name in found else truth[name]
            if float(off.norm()) > near * float(truth[name].norm()) + least:
                run.left[name] = "is used where the rules do not see it"
        kept[key] = Probe(run.left, frozenset(run.recurrent))
    return kept[key]


def bytes_kept(net: nn.Module, x: Tensor, wanted: frozenset[str], autocast: torch.dtype | None) -> int:
    """What autograd keeps of a second sample, and what a backward pass makes of it; of two or more inputs [N, ...]."""

    def kept(n: int) -> int:
        held: dict[tuple[int, int], int] = {}

        def pack(tensor: Tensor) -> Tensor:
            held[tensor.data_ptr(), tensor.nbytes] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), in_half(x, autocast):
            _ = net(x[:n])
        return sum(held.values())

    parameters = [p for name, p in net.named_parameters() if name in wanted]
    try:
        for p in parameters:
            p.requires_grad_(True)
        return max(1, int(OVERHEAD * (kept(2) - kept(1))))
    finally:
        for p in parameters:
            p.requires_grad_(False)


def independent(net: nn.Module, x: Tensor, out: Tensor, probe: Probe, autocast: torch.dtype | None = None) -> None:
    """Refuse a model whose outputs for a sample depend on the other samples of its batch; looked at once.

    Args:
        net: in eval mode.
        x: inputs [N, ...].
        out: what it says to all of them at once [N, C].
        probe: of the net.
        autocast: as for `sums_of`.

    Raises:
        ShapeError: they do.
    """
    if probe.independent or len(x) < 2:
        return
    with torch.no_grad(), in_half(x, autocast):
        alone = torch.cat([outputs_of(net(one), 1) for one in (x[:1], x[-1:])])
    moved = float((out[[0, -1]] - alone).abs().max())
    tolerance = COARSE if autocast else ROUNDING.get(out.dtype, COARSE)
    if moved > tolerance * max(float(alone.abs().max()), float(out.abs().max()), 1e-30):
        raise ShapeError(
            f"outputs of a sample move by {moved:.3g} with the other samples of its batch, so that samples have no gradients "
            f"of their own; something in the model couples them (batch statistics? attention over the batch?)"
        )
    probe.independent = True
