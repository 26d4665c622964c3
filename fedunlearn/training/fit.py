"""The one training loop: what a single process does, alone or as one rank of several."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from fedunlearn.errors import ShapeError
from fedunlearn.training.base import Portion, Recipe, seed_of

MOMENTUM = 0.9


@dataclass(frozen=True)
class Rank:
    """One of several processes that train one model together.

    Args:
        number: which one, from 0.
        of: how many there are.
        steps: steps an epoch, the same at every rank; a rank with fewer rows starts its order over.
    """

    number: int
    of: int
    steps: int


def fit(
    net: nn.Module,
    portions: Sequence[Portion],
    recipe: Recipe,
    train: Iterable[str] | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    rank: Rank | None = None,
) -> nn.Module:
    """Train a net in place by SGD on the cross-entropy.

    Every epoch shuffles the rows anew; an order that is too short for whole batches starts over (as torch's
    DistributedSampler pads). Portions without rows take no part; without any rows nothing is trained.

    Args:
        net: the net; one that averages gradients itself (DistributedDataParallel) where there are ranks.
        portions: what it is trained on.
        recipe: epochs, learning rate, batch, seed, device, precision.
        train: names of the parameters to train, with the rest frozen in eval mode (BatchNorm keeps its statistics); all by
            default.
        penalty: what is added to the loss of every step, from the bare net.
        rank: which rank this process is: it draws `batch // of` rows a step, in an order of its own. Alone by default.

    Returns:
        The same net, on the CPU, in eval mode.

    Raises:
        ExcludedError: a portion holds rows that its site has excluded.
        ShapeError: training diverged to NaN or infinity.
    """
    for portion in portions:
        portion.exclusions.check(portion.shard, portion.rows)
    full = [p.rows for p in portions if len(p.rows)]
    if not full:
        return net.eval()
    bare: nn.Module = net.module if isinstance(net, DistributedDataParallel) else net
    placed(bare, recipe)
    x, y = _inputs(torch.cat([r.x for r in full]), recipe), torch.cat([r.y for r in full]).to(recipe.device)
    wanted = None if train is None else set(train)
    trained = [p for n, p in bare.named_parameters() if wanted is None or n in wanted]
    optimiser = torch.optim.SGD(trained, lr=recipe.lr, momentum=MOMENTUM)
    falls = recipe.schedule == "cosine"
    each = recipe.batch if rank is None else max(1, recipe.batch // rank.of)
    steps = -(-len(y) // each) if rank is None else rank.steps
    whole = recipe.epochs * steps
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: (1 + math.cos(math.pi * s / whole)) / 2 if falls else 1.0)
    seed = recipe.seed if rank is None else seed_of(recipe.seed, "rank", str(rank.number))
    generator = torch.Generator().manual_seed(seed)
    net.train(train is None)
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.device(recipe.device).type == "cuda" else []):
        torch.manual_seed(seed)  # of dropout, where a net has any
        for _ in range(recipe.epochs):
            order = _order(len(y), steps * each, generator)
            for step in range(steps):
                rows = order[step * each : (step + 1) * each].to(recipe.device)
                optimiser.zero_grad()
                with _computing(recipe):
                    loss = functional.cross_entropy(net(x[rows]), y[rows])
                if penalty is not None:
                    loss = loss + penalty(bare)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                falling.step()
    bare.cpu()
    net.eval()
    if not all(bool(torch.isfinite(t).all()) for t in bare.state_dict().values()):
        raise ShapeError(f"training {recipe.name!r} diverged to NaN or infinity; lower lr (it is {recipe.lr})")
    return net


def placed(net: nn.Module, recipe: Recipe) -> nn.Module:
    """The net where it is trained, in the layout that the recipe's precision is fast in."""
    net.to(recipe.device)
    return net.to(memory_format=torch.channels_last) if recipe.precision == "bf16" else net  # type: ignore[call-overload]


def _inputs(x: Tensor, recipe: Recipe) -> Tensor:
    there = x.to(recipe.device)
    return there.contiguous(memory_format=torch.channels_last) if recipe.precision == "bf16" and x.dim() == 4 else there


def _computing(recipe: Recipe) -> AbstractContextManager[object]:
    bf16 = recipe.precision == "bf16"
    return torch.autocast(torch.device(recipe.device).type, torch.bfloat16) if bf16 else nullcontext()


def _order(rows: int, wanted: int, generator: torch.Generator) -> Tensor:
    """A shuffled order of `rows`, started over until `wanted` is reached."""
    order = torch.randperm(rows, generator=generator)
    return order if rows >= wanted else torch.cat([order] * (-(-wanted // rows)))[:wanted]
