"""What a birth starts from: its parents' equal average, in its own shapes."""

from collections.abc import Sequence

from fedunlearn.tensors import Head, Tensors, average
from fedunlearn.training.incremental import grow_head


def start_of(born: str, parents: Sequence[tuple[Tensors, Head]], fresh: Tensors, head: Head) -> Tensors:
    """The weights that training starts from.

    Args:
        born: the kind of birth; a transfer replaces the head, so that its parents may have different ones.
        parents: weights and head of each.
        fresh: a freshly made net of the new architecture.
        head: the new head.

    Returns:
        The fresh net without parents; else the parents' average, its head grown to the new one. For a transfer the body
        alone.

    Raises:
        ShapeError: the parents cannot be averaged.
    """
    if not parents:
        return fresh
    if born == "transfer":
        return average([{n: t for n, t in weights.items() if n not in old.names} for weights, old in parents])
    mean, old = average([weights for weights, _ in parents]), parents[0][1]
    return mean if old.classes == head.classes else grow_head(mean, fresh, old, head)
