"""One verb: measure a statistic of per-sample gradients, exactly, whatever the split into batches.

With squares and given labels this is the diagonal of the empirical Fisher information,
F_i = sum over (x, y) of (d -log p(y|x; theta) / d theta_i)^2, one squared gradient *per sample*; with squares and the
model's own outputs, of the true one. The papers' public code squares the gradient of a batch mean instead
(`batch_squares`), which shrinks with the batch size, so that their thresholds depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedunlearn.errors import ShapeError, check_names, unknown
from fedunlearn.importance.batch_squares import batch_squares
from fedunlearn.importance.engine import Sums, sums_of
from fedunlearn.importance.folds import FOLDS, Fold
from fedunlearn.importance.forward import FORWARD, forward_sums
from fedunlearn.importance.importance import Importance
from fedunlearn.importance.losses import Loss, loss_of
from fedunlearn.importance.passes import frozen
from fedunlearn.importance.probe import Probe, independent, probe_of
from fedunlearn.importance.tape import Tape, parameters_of
from fedunlearn.tensors import Head, names_in

MAX_BYTES = 256 << 20
LAYERS_KEPT = 64  # a forward pass alone holds a few activations at once; each is taken for at most this many inputs large
STATISTICS = (*FOLDS, *FORWARD, "batch_squares")


def measure(
    net: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    head: Head,
    statistic: str = "squares",
    loss: str | Loss | Callable[[Tensor, Tensor | None], Tensor] = "labels",
    layers: str | Sequence[str] = "all",
    masked: Sequence[str] = (),
    seed: int = 0,
    batch: int = 0,
    max_bytes: int = MAX_BYTES,
    autocast: torch.dtype | None = None,
    said: Callable[[str], None] = lambda _: None,
) -> Importance:
    """Sum a statistic of each sample's gradient over samples.

    Args:
        net: the model; it is put into eval mode (dropout off, BatchNorm by running statistics) and left as it was.
        x: inputs [N, ...], on the model's device.
        y: labels [N], int64, indices of the model's outputs; only the loss "labels" (and a user's own) reads them.
        head: the model's last layer. Where only it is asked for there is no backward pass through the model.
        statistic: of gradients: "squares", "absolute" (values), "sum" (which keeps their direction); of a forward pass
            alone, by name of each linear or convolutional weight: "activation" (of its layer's units), "moment" (second,
            of its layer's inputs); or "batch_squares", what the papers' code computes.
        loss: a name of `fedunlearn.importance.losses.LOSSES`, a `Loss`, or `of(outputs, labels) -> [N]`.
        layers: "all", "last", or names of parameters or layers; nothing below the first of them is differentiated.
        masked: for the loss "masked", the classes that the target lacks.
        seed: for the loss "sampled".
        batch: for "batch_squares" alone: the batch size that it depends on.
        max_bytes: bound on activations kept, and on per-sample gradients, at once (at least one sample's).
        autocast: forward pass in torch.bfloat16 or torch.float16; sums are made in float32 and added in float64.
        said: told of each parameter that has to go the slow way, and why.

    Returns:
        float64 sums, on the CPU, for the parameters in `layers`.

    Raises:
        InputError: an unknown statistic, loss, layer or class.
        ShapeError: samples are not independent, labels fall outside the outputs, or a result is not finite.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    check_names("class", masked, head.classes, "masked")
    chosen = loss_of(loss, tuple(head.classes.index(c) for c in masked), seed)
    names = [n for n, _ in net.named_parameters()]
    if layers == "last" and head.names[0] not in names:
        raise ShapeError(
            f"the weight of the last layer {head.layer!r} goes under another name, because it is shared; name that"
        )
    wanted = names_in(layers, names, head)
    if head.names[0] in names and (rows := len(net.get_parameter(head.names[0]))) != len(head.classes):
        raise ShapeError(f"the last layer {head.layer!r} has {rows} outputs, its head names {len(head.classes)} classes")
    if y is not None and len(y) != len(x):
        raise ShapeError(f"{len(y)} labels for {len(x)} rows, expected one a row")
    if chosen.labelled and y is not None and len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(head.classes)):
        raise ShapeError(f"labels run from {int(y.min())} to {int(y.max())}, the model has {len(head.classes)} outputs")
    if statistic in FORWARD:
        with evaluating(net), frozen(net):
            met = forward_sums(net, x, statistic, frozenset(wanted), max_bytes) if len(x) else {}
        return Importance({statistic: {n: t.cpu() for n, t in sorted(met.items())}}, len(x))
    if statistic == "batch_squares":
        with evaluating(net):
            return batch_squares(net, x, y, chosen, wanted, batch)
    about = chosen.rows(len(x), y)
    fold = FOLDS[statistic]
    with evaluating(net), frozen(net):
        probe = probe_of(net, x, frozenset(wanted), fold, autocast) if len(x) else Probe()
        if set(wanted) <= set(head.names) and not probe.left:  # a weight that another layer shares has no closed form
            found = Sums(_last_layer(net, x, about, chosen, fold, head, wanted, max_bytes, probe))
        else:
            found = sums_of(net, x, about, chosen, fold, frozenset(wanted), probe, max_bytes=max_bytes, autocast=autocast)
    for name, why in found.slow.items():
        said(f"{name} {why}: measured exactly, but slowly")
    return Importance({statistic: {n: found.sums[n].cpu() for n in wanted}}, len(x))


def by_class(net: nn.Module, x: Tensor, y: Tensor, *, head: Head, **settings: object) -> dict[str, Importance]:
    """`measure`, class by class of the labels: what a bank keeps, and plain sums of which each class has its own direction.

    Args:
        net: as for `measure`.
        x: as for `measure`.
        y: labels [N]; a loss that does not read them is grouped by them all the same.
        head: as for `measure`.
        **settings: as for `measure`.

    Returns:
        Class name -> importance, for classes that have rows.
    """
    found = {}
    for k, name in enumerate(head.classes):
        rows = (y == k).nonzero().flatten()
        if len(rows):
            found[name] = measure(net, x[rows], y[rows], head=head, **settings)  # type: ignore[arg-type]
    return found


def _last_layer(
    net: nn.Module,
    x: Tensor,
    y: Tensor | None,
    loss: Loss,
    fold: Fold,
    head: Head,
    wanted: Sequence[str],
    max_bytes: int,
    probe: Probe,
) -> dict[str, Tensor]:
    """Closed form for a last linear layer with inputs h and output gradients g: sum of f(g) f(h)^T. No backward pass."""
    weight, bias = head.names
    sums = {n: torch.zeros(net.get_parameter(n).shape, dtype=torch.float64, device=x.device) for n in wanted}
    step = max(1, max_bytes // max(1, LAYERS_KEPT * x[:1].numel() * x.element_size()))
    for i in range(0, len(x), step):
        h, out = _features(net, x[i : i + step], head)
        independent(net, x[i : i + step], out, probe)
        leaf = out.double().requires_grad_()
        for term in list(loss.terms(leaf, None if y is None else y[i : i + step], fold.power)):
            (g,) = torch.autograd.grad(term.sum(), leaf, retain_graph=True)
            if weight in sums:
                sums[weight] += fold.outer(g, h)
            if bias in sums:
                sums[bias] += fold.total(g)
    return sums


def _features(net: nn.Module, x: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Inputs of the last layer, float64, and the model's outputs."""
    seen: list[tuple[Tensor, Tensor]] = []

    def see(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], out: Tensor) -> None:
        (given,) = (*args, *kwargs.values())
        seen.append((given.detach(), out.detach()))

    handle = net.get_submodule(head.layer).register_forward_hook(see, with_kwargs=True)
    try:
        with torch.no_grad(), Tape(parameters_of(net), frozenset(), len(x)):
            out = net(x)
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0][0].dim() != 2 or not torch.equal(seen[0][1], out):
        raise ShapeError(
            f"layer {head.layer!r} is not a plain last linear layer (called {len(seen)} times, its output must be the "
            f"model's): measure all layers instead"
        )
    return seen[0][0].double(), out


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode, and every module back in the mode it had."""
    was = {m: m.training for m in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training
