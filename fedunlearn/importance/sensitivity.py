"""LFSSD's importance: how strongly the size of the outputs depends on each parameter. Needs no labels.

Loss-free SSD (arXiv 2402.19308): Omega_i = mean over x of |d ||f(x)||^2 / d theta_i|. Its public code takes the absolute value
of a batch mean, in which samples cancel; here it is taken per sample. For a last linear layer with inputs h and outputs z,
d ||z||^2 / dW_c = 2 z_c h, so that the sum is 2 |Z|^T |H|, and no backward pass is needed.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fedunlearn.importance.fisher import measure
from fedunlearn.importance.importance import Importance
from fedunlearn.tensors import Head


def sensitivity(net: nn.Module, x: Tensor, *, head: Head, layers: str | Sequence[str] = "all") -> Importance:
    """Sum over samples of the absolute gradient of the squared output norm.

    Args:
        net: the model.
        x: inputs [N, ...]; no labels.
        head: the model's last layer.
        layers: as for `measure`.

    Returns:
        The statistic "absolute", float64.
    """
    return measure(net, x, head=head, statistic="absolute", loss="norm", layers=layers)
