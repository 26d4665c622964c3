"""What a net says to rows: its outputs, and the margin that attacks and distances of models are made of."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.nets import batches


def logits(net: nn.Module, rows: Rows) -> Tensor:
    """Outputs of a net, before any softmax.

    Args:
        net: in eval mode.
        rows: N inputs, labelled by the net's outputs.

    Returns:
        float64 [N, C], on the CPU: differences of confident models are lost in float32.

    Raises:
        ShapeError: an output is NaN or infinite.
    """
    parts = list(outputs(net, rows))
    return torch.cat(parts).double() if parts else torch.zeros(0, len(rows.classes), dtype=torch.float64)


def outputs(net: nn.Module, rows: Rows) -> Iterator[Tensor]:
    """Outputs of a net as it gives them, a batch of rows after the other [B, C], on the CPU.

    Args:
        net: in eval mode.
        rows: inputs.

    Raises:
        ShapeError: an output is NaN or infinite (which would otherwise count as the first class, or as forgotten).
    """
    for x in batches(net, rows.x):
        with torch.no_grad():
            out: Tensor = net(x)
        if not bool(torch.isfinite(out).all()):
            raise ShapeError("the model's outputs are NaN or infinite; it cannot be scored")
        yield out.cpu()


def mean_loss(net: nn.Module, rows: Rows) -> float | None:
    """Mean cross-entropy of the rows' labels, in nats; None where there is no row.

    Args:
        net: in eval mode.
        rows: labelled by the net's outputs.

    Raises:
        ShapeError: an output is NaN or infinite.
    """
    return float(functional.cross_entropy(logits(net, rows), rows.y)) if len(rows) else None


def loss_gap(net: nn.Module, others: Rows, these: Rows) -> float | None:
    """How much larger a net's mean loss is on others than on these, in nats; None where there is no row of either.

    Raises:
        ShapeError: an output is NaN or infinite.
    """
    if (there := mean_loss(net, others)) is None or (here := mean_loss(net, these)) is None:
        return None
    return there - here


def margins(out: Tensor, y: Tensor) -> Tensor:
    """How much more a net believes in the label than in anything else: log p_y - log(1 - p_y), in nats.

    The logit-scaled confidence of LiRA (Carlini et al. 2022, arXiv 2112.03570, equation 4) and the margin of KLOM are the same
    number, z_y - logsumexp of the other z; written so, it is exact however confident the net is.

    Args:
        out: logits [N, C].
        y: labels [N].

    Returns:
        [N].

    Raises:
        InputError: there is a single output, which has nothing to be compared with.
    """
    if out.shape[1] < 2:
        raise InputError(f"margins: the model has {out.shape[1]} output, expected two or more")
    label = y[:, None].to(out.device)
    own = out.gather(1, label)[:, 0]
    return own - out.scatter(1, label, -torch.inf).logsumexp(1)


def hits(out: Tensor, y: Tensor) -> Tensor:
    """Where the largest output is the label: bool [N]."""
    return out.argmax(1) == y
