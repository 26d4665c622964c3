"""The one training loop."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional

from fedunlearn.errors import ShapeError
from fedunlearn.training.base import Portion, Recipe

MOMENTUM = 0.9


def fit(net: nn.Module, ranks: Sequence[Sequence[Portion]], recipe: Recipe, train: Iterable[str] | None = None) -> nn.Module:
    """Train a net in place by SGD on the cross-entropy; with several ranks, on the mean of their gradients.

    Every rank draws `batch // ranks` rows a step from its own portions; a rank with fewer rows starts over (as torch's
    DistributedSampler pads). Ranks and portions without rows take no part; without any rows nothing is trained.

    Args:
        net: the net.
        ranks: for each rank, the portions it trains on. One rank is ordinary training.
        recipe: epochs, learning rate, batch, seed, device.
        train: names of the parameters to train, with the rest frozen in eval mode (BatchNorm keeps its statistics); all by
            default.

    Returns:
        The same net, on the CPU, in eval mode.

    Raises:
        ExcludedError: a portion holds rows that its site has excluded.
        ShapeError: training diverged to NaN or infinity.
    """
    for portion in (p for rank in ranks for p in rank):
        portion.exclusions.check(portion.shard, portion.rows)
    full = [[p.rows for p in rank if len(p.rows)] for rank in ranks]
    data = [(torch.cat([r.x for r in rank]), torch.cat([r.y for r in rank])) for rank in full if rank]
    if not data:
        return net.eval()
    net.to(recipe.device)
    data = [(x.to(recipe.device), y.to(recipe.device)) for x, y in data]
    wanted = None if train is None else set(train)
    trained = [p for n, p in net.named_parameters() if wanted is None or n in wanted]
    optimiser = torch.optim.SGD(trained, lr=recipe.lr, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(recipe.seed)
    each = max(1, recipe.batch // len(data))
    steps = -(-max(len(y) for _, y in data) // each)
    net.train(train is None)
    for _ in range(recipe.epochs):
        orders = [_order(len(y), steps * each, generator) for _, y in data]
        for step in range(steps):
            optimiser.zero_grad()
            for (x, y), order in zip(data, orders, strict=True):
                rows = order[step * each : (step + 1) * each].to(recipe.device)
                loss = functional.cross_entropy(net(x[rows]), y[rows]) / len(data)
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    net.cpu().eval()
    if not all(bool(torch.isfinite(t).all()) for t in net.state_dict().values()):
        raise ShapeError(f"training {recipe.name!r} diverged to NaN or infinity; lower lr (it is {recipe.lr})")
    return net


def _order(rows: int, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """A shuffled order of `rows`, started over until `wanted` is reached when there are several ranks to keep in step."""
    order = torch.randperm(rows, generator=generator)
    return order if rows >= wanted else torch.cat([order] * (-(-wanted // rows)))[:wanted]
