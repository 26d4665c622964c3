"""Nets are such that what each sample contributes can be measured exactly, in one pass or (where said) slowly."""

import torch
from torch import Tensor, nn

from fedunlearn.importance import measure
from fedunlearn.importance.losses import Labels
from fedunlearn.importance.reference import loop
from fedunlearn.nets import head_of


def assert_exact(net: nn.Module, x: Tensor, outputs: int, *, slow: bool = False) -> None:
    """The engine agrees with the loop over samples, and says so where it has to be slow."""
    net = net.double().eval()
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # statistics and parameters that are not trivial
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    y = torch.arange(len(x)) % outputs
    said: list[str] = []
    head = head_of(net, [str(i) for i in range(outputs)])
    fast = measure(net, x, y, head=head, statistic="squares", loss=Labels(), said=said.append).sums["squares"]
    exact = loop(net, x, Labels().rows(len(x), y), "squares", Labels()).sums["squares"]
    assert fast.keys() == exact.keys() == dict(net.named_parameters()).keys()
    for name, truth in exact.items():
        assert float((fast[name] - truth).norm()) <= 1e-8 * float(truth.norm()), name
    assert bool(said) == slow, said


def assert_each_alone(net: nn.Module, x: Tensor) -> None:
    """In eval mode outputs are the same again, whoever else is in the batch, and with gradients or without."""
    net.eval()
    with torch.no_grad():
        whole, again, alone = net(x), net(x), torch.cat([net(x[i : i + 1]) for i in range(len(x))])
    assert torch.isfinite(whole).all()
    assert torch.equal(whole, again)
    for other in (alone, net(x).detach()):
        torch.testing.assert_close(whole, other, rtol=1e-4, atol=1e-5)
