"""Steer: evidence that says which way to move, not only where knowledge lies. Our own method.

A root sends, for each forgotten class i, the mean gradient g_i over its rows of KL(t || p): p are the model's outputs, t the
same outputs with all forgotten classes masked, which is close to what retraining gives and does not vanish on a model that is
sure of itself. With it goes one number D_i: the first-order decrease of that loss that was enough at the root, where there
are rows to see it. Raw strengths do not carry over from model to model (what is needed varies 20-fold), this decrease does.
For samples and whole sites, which a retrained model has not seen either but may well recognise, the loss is the labels', it is
to rise, and D is the gap between the root's mean loss on calibration rows and on what is forgotten.

An heir takes the smallest change, in the damage it does on its own data, that makes every loss fall by its D_i or more:

    minimise  delta' P^-1 delta / 2   so that   <g_i, delta> <= -D_i for every i,

which is delta = -P G' l, with l >= 0 and G P G' l >= D, tight where l > 0 (equal to -P G' (G P G')^-1 D where all are).
P is the inverse second moment of each layer's inputs on the heir's own data (the input side of K-FAC, Martens and Grosse 2015,
arXiv 1503.05671): forward passes only, and no row of what is forgotten. Evidence of several roots and classes is kept apart:
each is a constraint of its own. That they are inequalities makes two roots that say the same count once, and of two that
agree on the way but not on how far, the farther.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.methods.base import Case, Evidence, Method, Strength, Want
from fedunlearn.methods.calibration import least
from fedunlearn.methods.logit_mask import no_output
from fedunlearn.tensors import Tensors, equal

MARGIN = 1.3  # how much farther than what was enough at the root
FACTORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, MARGIN, 1.6, 2.0, 2.5, 3.2, 4.0)  # to choose from at an heir
LEFT = 0.02  # accuracy on the class that is taken for forgotten at a root
LAST, DEEP = 0.01, 0.03  # ridge of a moment, over the mean of its diagonal: for the last layer alone, and for others
ROWS = 1000  # of each shard that weigh an heir; in the prototype 100 were enough for ResNet-20
SOFT = 1e-6  # of the diagonal: how soft the constraints are
TIGHT = 1e-12  # relative: what is taken for met


@dataclass(frozen=True)
class Steer(Method):
    """Directions from the roots, the smallest change that follows them at every heir.

    Args:
        factor: the decrease to reach, over what was enough at the root; "auto" is `MARGIN` where it keeps to the gate's limits
            on the heir's calibration rows or there are none of the class, and otherwise chosen on them.
        layers: "last", "all" (linear and convolutional layers), or the name of a layer.

    Raises:
        InputError: a setting is out of range.
    """

    factor: float | Literal["auto"] = "auto"
    layers: str = "last"
    name = "steer"
    evidence = Want("sum", "masked")
    own = Want("moment", rows=ROWS)
    apart = True
    retained = True

    def __post_init__(self) -> None:
        if self.factor != "auto" and not (isinstance(self.factor, int | float) and 0 <= self.factor < float("inf")):
            raise InputError(f"steer: factor is {self.factor!r}, expected a number from 0 up, or 'auto'")

    def wants(self, classes: Sequence[str]) -> Want:
        """Which way: towards the masked outputs for classes; for samples, away from their labels."""
        return Want("sum", "masked") if classes else Want("sum")

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Kept apart; what is said twice, to the bit, is heard once."""
        kept: list[Evidence] = []
        for one in evidence:
            if not any(one.about == k.about and one.enough == k.enough and equal(one.means, k.means) for k in kept):
                kept.append(one)
        return tuple(kept)

    def misses(self, case: Case) -> str | None:
        """An heir without an output for any of the classes, one that shares nothing, or roots that cannot say how far."""
        if case.classes and self.layers == "last" and (why := no_output(case, "steer")):
            return why
        reached = _reached(case)
        if reached and all(one.enough is None for one in reached):
            return "cannot be steered: no root has calibration rows to say how far"
        return None if reached else f"needs deeper layers; it shares nothing with the evidence in layers {self.layers!r}"

    def strengths(self, case: Case, most: int) -> Sequence[Strength]:
        """Factors around `MARGIN`, or the one that was given."""
        del case
        return [{"factor": f} for f in (FACTORS[-most:] if self.factor == "auto" else (float(self.factor),))]

    def sent(self, case: Case) -> Strength | None:
        """What was enough at the root; for classes, which are to vanish, with a margin."""
        return {"factor": float(self.factor) if self.factor != "auto" else MARGIN if case.classes else 1.0}

    def enough(self, weights: Tensors, case: Case, left: Callable[[Tensors], float], gap: float | None) -> float | None:
        """D: the least first-order decrease after which at most `LEFT` of the rows are recognised; the gap, for samples.

        It is 0 where the root does not know the class, or does no better on the samples than on others: nothing is to be moved.
        """
        if not case.classes:
            return None if gap is None else max(0.0, gap)
        if left(weights) <= LEFT:
            return 0.0

        def after(decrease: float) -> float:
            (one,) = case.evidence
            at = Evidence(one.means, one.rows, one.about, decrease)
            return left(self.edit(weights, Case((at,), case.own, case.head, case.classes), {"factor": 1.0}))

        return least(after, LEFT)

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Take the smallest change that reaches all decreases."""
        found = _reached(case)
        sides = {layer: _damped(case.own.means[layer], self.ridge) for layer in _layers(found, case, weights)}
        way_of = 1.0 if case.classes else -1.0  # the labels' loss of samples is to rise
        rows = [{n: way_of * _flat(e.means, n, len(side)) for n, side in sides.items() if n in e.means} for e in found]  # G
        ways = [{n: torch.linalg.solve(sides[n], g.T).T for n, g in row.items()} for row in rows]  # G P
        gram = [[sum(float((g[n] * way[n]).sum()) for n in sides if n in g and n in way) for way in ways] for g in rows]
        enough = [one.enough or 0.0 for one in found]
        weight_of = multipliers(torch.tensor(gram, dtype=torch.float64), torch.tensor(enough, dtype=torch.float64))
        edited = dict(weights)
        for name, side in sides.items():
            step = torch.zeros(len(weights[name]), len(side), dtype=torch.float64)
            for multiplier, way in zip(weight_of.tolist(), ways, strict=True):
                if name in way:
                    step += multiplier * strength["factor"] * way[name]
            width = weights[name][0].numel()
            edited[name] = _moved(weights[name], step[:, :width].reshape(weights[name].shape))
            if len(side) > width:
                edited[_bias(name)] = _moved(weights[_bias(name)], step[:, width])
        return edited

    @property
    def ridge(self) -> float:
        """What is added to the diagonal of a moment, over its mean."""
        return LAST if self.layers == "last" else DEEP


def multipliers(gram: Tensor, far: Tensor) -> Tensor:
    """The l >= 0 that minimises l' M l / 2 - d' l, by active sets (Lawson and Hanson 1974, "Solving Least Squares Problems").

    They are the multipliers of: the smallest change whose decrease along every constraint i is d_i or more. M's diagonal is
    raised by `SOFT`, so that constraints that contradict each other give a compromise instead of an endless step.

    Args:
        gram: M [K, K], positive semidefinite; constraints with a diagonal of 0 cannot be met and are left out.
        far: d [K], 0 or more.
    """
    scale = gram.diagonal().sqrt()
    able = scale > 0
    scale = torch.where(able, scale, 1.0)
    m, d = gram / scale / scale[:, None] + SOFT * torch.eye(len(far), dtype=gram.dtype), torch.where(able, far / scale, 0.0)
    found, held = torch.zeros_like(d), torch.zeros(len(d), dtype=torch.bool)
    for _ in range(3 * len(d)):
        short = torch.where(held, -torch.inf, d - m @ found)
        if not len(d) or float(short.max()) <= TIGHT * float(d.max()):
            break
        held[int(short.argmax())] = True
        while True:
            best = torch.zeros_like(d)
            best[held] = torch.linalg.solve(m[held][:, held], d[held])
            below = held & (best <= 0)
            if not bool(below.any()):
                break
            share = (found / (found - best))[below].min()  # as far as all stay at 0 or above
            found = (found + share * (best - found)).clamp(min=0)
            held &= ~(below & (found <= TIGHT * found.max()))
        found = best
    return found / scale


def _reached(case: Case) -> list[Evidence]:
    """Evidence that shares anything with the heir; of that about a class, what is about one that it has an output for."""
    return [e for e in case.evidence if e.means and (not e.about or e.about in case.head.classes)]


def _layers(found: Sequence[Evidence], case: Case, weights: Tensors) -> list[str]:
    named = {n for one in found for n in one.means}
    return [n for n in sorted(case.own.means) if n in named and n in weights]


def _bias(layer: str) -> str:
    return layer.removesuffix("weight") + "bias"


def _damped(moment: Tensor, ridge: float) -> Tensor:
    """P^-1 of one layer."""
    size = float(moment.diagonal().mean()) or 1.0  # a layer that sees only zeros has no direction that does damage
    return moment + ridge * size * torch.eye(len(moment), dtype=moment.dtype)


def _flat(means: Tensors, layer: str, width: int) -> Tensor:
    """A layer's gradient as a matrix, the bias as its last column where the moment has one."""
    weight = means[layer].flatten(1)
    return weight if weight.shape[1] == width else torch.cat([weight, means[_bias(layer)][:, None]], 1)


def _moved(weight: Tensor, step: Tensor) -> Tensor:
    return (weight.double() - step).to(weight.dtype)
