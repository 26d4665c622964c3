"""Nets that are measured, in float64, and the loop over samples that they are held against."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedunlearn.importance import measure
from fedunlearn.importance.losses import Labels, Loss
from fedunlearn.importance.reference import loop
from fedunlearn.tensors import Head

OUTPUTS = 3


def head_of(net: nn.Module) -> Head:
    return Head([n for n, m in net.named_modules() if isinstance(m, nn.Linear)][-1], tuple(str(i) for i in range(OUTPUTS)))


def batch(*shape: int, words: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, OUTPUTS, (shape[0],), generator=generator)
    if words:
        return torch.randint(0, words, shape, generator=generator), y
    return torch.randn(shape, generator=generator, dtype=torch.float64), y


def ready(net: nn.Module) -> nn.Module:
    """float64, eval mode, running statistics and affine parameters that are not trivial."""
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        for name in ("running_mean", "running_var", "weight", "bias"):
            tensor = getattr(module, name, None)
            if isinstance(tensor, Tensor) and tensor.dim() == 1:
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net.double().eval()


def assert_exact(
    net: nn.Module, x: Tensor, y: Tensor, *, slow: bool = False, statistic: str = "squares", loss: Loss | None = None
) -> None:
    said: list[str] = []
    loss = loss or Labels()
    fast = measure(net, x, y, head=head_of(net), statistic=statistic, loss=loss, said=said.append).sums[statistic]
    exact = loop(net, x, loss.rows(len(x), y), statistic, loss).sums[statistic]
    assert fast.keys() == exact.keys()
    for name, truth in exact.items():
        assert float((fast[name] - truth).norm()) <= 1e-10 * float(truth.norm()) + 1e-300, name
    assert bool(said) == slow, said


class Flat(nn.Module):
    """A layer under test, the mean over what it leaves of positions, and a head."""

    def __init__(self, layer: nn.Module, width: int, keep: Callable[[Tensor], Tensor] = lambda t: t) -> None:
        super().__init__()
        self.layer, self.keep, self.head = layer, keep, nn.Linear(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.keep(self.layer(x))))
        return out


def over(*dims: int) -> Callable[[Tensor], Tensor]:
    return lambda t: t.mean(dims)


class Odd(nn.Module):
    """Uses its parameters in a way that a hook on modules would miss."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(6, 6), nn.Linear(6, 6)
        self.scale, self.place = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(1, 6))
        self.head = nn.Linear(6, OUTPUTS)
        if how == "tied":
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.first(x))
        if self.how in ("tied", "plain"):
            out = torch.relu(self.second(out))
        elif self.how == "twice":
            out = torch.relu(self.first(out))
        elif self.how == "functional":
            out = nn.functional.linear(out, self.second.weight * 2, self.second.bias)
        elif self.how == "also functional":
            out = out @ self.first.weight
        elif self.how == "transposed":
            out = nn.functional.linear(out.T.contiguous().T, self.second.weight) + (self.first.weight * self.second.bias).sum(1)
        out = out * self.scale + self.place
        return self.head(out)  # type: ignore[no-any-return]
