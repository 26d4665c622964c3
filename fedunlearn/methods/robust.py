"""Merges that a minority of lying sites cannot steer, entry by entry. Each site has one vote, whatever count it claims.

With n sites, the median and the clipped mean bear (n - 1) // 2 liars, the trimmed mean as many as it cuts off at each end.
Two sites that disagree, or one alone, cannot be outvoted by any of them. What that costs on honest sites: rare weights that
matter at few of them count less than in the pooled mean or the maximum.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fedunlearn.methods.base import Evidence

Number = TypeVar("Number", float, Tensor)

CUT = 5  # the trimmed mean leaves out one in so many at each end, and at least one


def median(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The elementwise median; the mean of the middle two where their number is even (Yin et al., arXiv 1803.01498)."""
    return _voted(evidence, _middle)


def trimmed(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The elementwise mean without the largest and the smallest fifth, at least one each (Yin et al., arXiv 1803.01498).

    Of fewer than three, the plain mean.
    """

    def mean(votes: Tensor) -> Tensor:
        n = len(votes)
        cut = max(1, n // CUT) if n > 2 else 0
        return votes.sort(0).values[cut : n - cut].mean(0)

    return _voted(evidence, mean)


def clipped(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The mean, each site's tensor first scaled down to at most the median site's size (as norms in Sun et al., 1911.07963)."""

    def mean(votes: Tensor) -> Tensor:
        sizes = votes.reshape(len(votes), -1).abs().sum(1)
        share = (_middle(sizes) / sizes).nan_to_num(1.0).clamp(max=1.0)  # 0 / 0: nothing to clip
        return (votes * share.reshape(-1, *[1] * (votes.dim() - 1))).mean(0)

    return _voted(evidence, mean)


def _middle(votes: Tensor) -> Tensor:
    """Over the first axis; torch.quantile refuses large tensors."""
    ordered, n = votes.sort(0).values, len(votes)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


VOTES = {"median": median, "trimmed": trimmed, "clipped": clipped}


def _voted(evidence: Sequence[Evidence], of: Callable[[Tensor], Tensor]) -> tuple[Evidence, ...]:
    """Of each class where they are apart, name by name, over those that have it; and so what was enough at the roots."""
    found = []
    for about in dict.fromkeys(e.about for e in evidence):
        votes = [e for e in evidence if e.about == about]
        names = dict.fromkeys(n for e in votes for n in e.means)
        means = {n: of(torch.stack([e.means[n] for e in votes if n in e.means])) for n in names}
        told = [e.enough for e in votes if e.enough is not None]
        enough = of(torch.tensor(told, dtype=torch.float64)).item() if told else None
        found.append(Evidence(means, sum(e.rows for e in votes), about, enough))
    return tuple(found)


def averaged(evidence: Sequence[Evidence]) -> Evidence:
    """The mean, by rows, of what a site says of one class on several models: its one vote where squares are not meant."""
    names = dict.fromkeys(n for e in evidence for n in e.means)
    means = {n: _weighted([(e.means[n], e.rows) for e in evidence if n in e.means]) for n in names}
    told = [(e.enough, e.rows) for e in evidence if e.enough is not None]
    return Evidence(means, sum(e.rows for e in evidence), evidence[0].about, _weighted(told) if told else None)


def _weighted(of: Sequence[tuple[Number, int]]) -> Number:
    """The mean of numbers, or of tensors, that stand for so many rows each."""
    total = sum(rows for _, rows in of)
    found, *rest = (value * (rows / total) for value, rows in of)
    for one in rest:
        found = found + one
    return found
