"""Steer: evidence that says which way to move, not only where knowledge lies. Our own method.

A root sends, for each forgotten class i, the mean gradient g_i over its rows of KL(t || p): p are the model's outputs, t the
same outputs with all forgotten classes masked (those of earlier requests too, which would come back else). That is close to
what retraining gives, and does not vanish on a model that is sure of itself. With it goes one number D_i: the first-order
decrease of that loss that was enough at the root, where there are rows to see it. Raw strengths do not carry over from model
to model (what is needed varies 20-fold), this decrease does. For samples and whole sites, which a retrained model has not seen
either but may well recognise, the loss is the labels', it is to rise, and D is the gap between the root's mean loss on
calibration rows and on what is forgotten.

An heir takes the smallest change, in the damage it does on its own data, that makes every loss fall by its D_i or more:

    minimise  delta' P^-1 delta / 2   so that   <g_i, delta> <= -D_i for every i,

which is delta = -P G' l, with l >= 0 and G P G' l >= D, tight where l > 0 (equal to -P G' (G P G')^-1 D where all are).
P is the inverse second moment of each layer's inputs on the heir's own data (the input side of K-FAC, Martens and Grosse 2015,
arXiv 1503.05671): forward passes only, and no row of what is forgotten. Evidence of several roots and classes is kept apart:
each is a constraint of its own. That they are inequalities makes two roots that say the same count once, and of two that
agree on the way but not on how far, the farther. Where sites may lie, `merging` lets them vote instead, class by class, on the
way and on how far.

The step stands for the mean row of a class. Rows unlike it stay, more of them at heirs that have drifted; and nothing that is
kept needs the class's own output. So that is lowered besides, by `drop` times as many logits as the decrease that was asked
for (D is about the margin by which the class was recognised), which can cost the rest nothing. Alone that would be a soft logit
mask, and a single number, the bias, would bring the class back. After the step it brings back little: hence the wide `MARGIN`
(`simulations/steer_ablation.py`).

Two settings make the papers' localisation and this direction one family. `weigh` says what damage is: P may also be the inverse
diagonal Fisher of the heir's own data (SSD's yardstick), or nothing at all. `share` selects before the step, as FIUn does: only
the weights move whose evidence most exceeds the heir's own importance, M_i / F_i, M being the maximum over roots of g^2 (what
the papers' code measures, with all rows as one batch) and F the diagonal of P^-1; a number of weights instead of a threshold.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedunlearn.errors import InputError, unknown
from fedunlearn.methods.base import Case, Evidence, Method, Strength, Want, shares_nothing
from fedunlearn.methods.calibration import FARTHEST, least
from fedunlearn.methods.logit_mask import no_output
from fedunlearn.methods.masks import top
from fedunlearn.methods.multipliers import multipliers
from fedunlearn.methods.robust import VOTES, averaged
from fedunlearn.tensors import Head, Tensors, equal

MARGIN = 2.0  # how much farther than what was enough at the root, for the last layer alone
DEEP_MARGIN = 1.3  # the same for others: there the step is no longer small, and four classes at once would cost points
FACTORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, DEEP_MARGIN, 1.6, MARGIN, 2.5, 3.2, 4.0)
LEFT = 0.02  # accuracy on the class that is taken for forgotten at a root
NEARLY, AT_MOST = 0.1, 2.0  # what few rows need beyond twice of what leaves so little is not asked of every heir
LAST, DEEP = 0.01, 0.03  # ridge of a moment, over the mean of its diagonal: for the last layer alone, and for others
ROWS = 1000  # of each shard that weigh an heir; in the prototype 100 were enough for ResNet-20
LAST_FISHER, DEEP_FISHER = 1.0, 10.0  # the same for a diagonal Fisher, which is far less even
WEIGHED = {"moment": Want("moment", rows=ROWS), "fisher": Want("squares", rows=ROWS), "none": None}
DROP = 1.0  # logits that a class's own output is lowered by, over the decrease


class _Pull(NamedTuple):
    """What of an edit is the same however far it goes: names of what may move, G P by parameter [K, ...], and G P G' [K, K]."""

    names: Collection[str]
    ways: Tensors
    gram: Tensor


@dataclass(frozen=True)
class Steer(Method):
    """Directions from the roots, the smallest change that follows them at every heir.

    Args:
        factor: the decrease to reach, over what was enough at the root; "auto" is `MARGIN` (`DEEP_MARGIN` for other layers)
            where it keeps to the gate's limits on the heir's calibration rows or there are none of the class, and otherwise
            one of `FACTORS`, chosen on them.
        layers: "last", "all", or the names of layers; where inputs' moments weigh, linear and convolutional ones among them.
        weigh: how damage is measured: "moment" of layers' inputs, diagonal "fisher", or "none" (the length of the step).
        share: of the weights, which the step may move; above 0.
        drop: by how many logits a forgotten class's own output is lowered besides, over the decrease; 0 for the step alone.
        merging: "apart", or over sites "median", "trimmed" or "clipped", which bear a minority of them that cheats (see
            `methods/robust.py`).

    Raises:
        InputError: a setting is out of range.
    """

    factor: float | Literal["auto"] = "auto"
    layers: str = "last"
    weigh: str = "moment"
    share: float = 1.0
    drop: float = DROP
    merging: str = "apart"
    name = "steer"
    evidence = Want("sum", "masked")
    own = WEIGHED["moment"]
    apart = True
    farthest = FARTHEST
    retained = True

    def __post_init__(self) -> None:
        if self.factor != "auto" and not (isinstance(self.factor, int | float) and 0 <= self.factor < float("inf")):
            raise InputError(f"steer: factor is {self.factor!r}, expected a number from 0 up, or 'auto'")
        if not (isinstance(self.share, int | float) and 0 < self.share <= 1):
            raise InputError(f"steer: share is {self.share!r}, expected a fraction above 0, up to 1")
        if not (isinstance(self.drop, int | float) and 0 <= self.drop < float("inf")):
            raise InputError(f"steer: drop is {self.drop!r}, expected a number from 0 up")
        if self.weigh not in WEIGHED:
            raise unknown("weigh", self.weigh, WEIGHED, where="steer")
        if self.merging not in MERGES:
            raise unknown("merging", self.merging, MERGES, where="steer")
        object.__setattr__(self, "own", WEIGHED[self.weigh])  # no setting of its own, so that it has no field

    def wants(self, classes: Sequence[str]) -> Want:
        """Which way: towards the masked outputs for classes; for samples, away from their labels."""
        return Want("sum", "masked") if classes else Want("sum")

    @property
    def votes(self) -> bool:
        """A robust merge is over sites."""
        return self.merging in VOTES

    def vote(self, evidence: Sequence[Evidence]) -> Sequence[Evidence]:
        """Of each class the mean over a site's models, by their rows."""
        return [averaged([e for e in evidence if e.about == about]) for about in dict.fromkeys(e.about for e in evidence)]

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Kept apart, or as the sites vote."""
        return MERGES[self.merging](evidence)

    def misses(self, case: Case) -> str | None:
        """An heir without an output for any of the classes, one that shares nothing, or roots that cannot say how far."""
        if case.classes and self.layers == "last" and (why := no_output(case, "steer")):
            return why
        reached = _reached(case)
        if reached and all(one.enough is None for one in reached):
            return "cannot be steered: no root has calibration rows to say how far"
        return None if reached else shares_nothing(self.layers)

    def strengths(self, case: Case) -> Sequence[Strength]:
        """Factors around `MARGIN`, or the one that was given."""
        del case
        return [{"factor": f} for f in (FACTORS if self.factor == "auto" else (float(self.factor),))]

    def sent(self, case: Case) -> Strength | None:
        """What was enough at the root; for classes, which are to vanish, with a margin."""
        margin = MARGIN if self.layers == "last" else DEEP_MARGIN
        return {"factor": float(self.factor) if self.factor != "auto" else margin if case.classes else 1.0}

    def enough(self, weights: Tensors, case: Case, left: Callable[[Tensors], float], gap: float | None) -> float | None:
        """D: the least first-order decrease after which at most `LEFT` of the rows are recognised; the gap, for samples.

        A row or two that no reasonable step reaches (wrong labels, say) do not decide: D is at most twice what leaves `NEARLY`.
        It is of the step alone: where the class's own output is lowered as well, less would seem to be enough.
        It is 0 where the root does not know the class, or does no better on the samples than on others: nothing is to be moved.
        """
        if not case.classes:
            return None if gap is None else max(0.0, gap)
        if left(weights) <= LEFT:
            return 0.0

        step, pull, found = replace(self, drop=0.0), self._pull(weights, case), _reached(case)

        @cache
        def after(decrease: float) -> float:
            return left(step._moved(weights, case, [replace(one, enough=decrease) for one in found], pull, 1.0))

        return min(least(after, LEFT), AT_MOST * least(after, NEARLY))

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Take the smallest change that reaches all decreases, and lower the outputs of forgotten classes."""
        if self not in case.worked:
            case.worked[self] = self._pull(weights, case)
        return self._moved(weights, case, _reached(case), case.worked[self], strength["factor"])

    def _pull(self, weights: Tensors, case: Case) -> _Pull:
        found = _reached(case)
        rows = self._rows(weights, case, found)
        if self.share < 1:
            rows = self._selected(rows, case)
        ways = self._damped(rows, case)
        none = torch.zeros(len(found), len(found)).double()
        return _Pull(rows.keys(), ways, sum((rows[n].flatten(1) @ way.flatten(1).T for n, way in ways.items()), none))

    def _moved(self, weights: Tensors, case: Case, found: Sequence[Evidence], pull: _Pull, factor: float) -> dict[str, Tensor]:
        far = -factor if case.classes else factor  # the labels' loss is to rise
        enough = torch.tensor([one.enough or 0.0 for one in found], dtype=torch.float64)
        weight_of = multipliers(pull.gram, enough)
        edited = dict(weights)
        for name, way in pull.ways.items():
            step = torch.tensordot(weight_of, way, 1)
            edited[name] = (weights[name].double() + far * step).to(weights[name].dtype)
        name, reaches = case.head.names[1], zip(found, pull.gram.diagonal(), strict=True)
        asked = [e for e, reach in reaches if reach > 0 and name in pull.names and name in e.means]
        if asked:
            lower = _lower(asked, case.head)
            edited[name] = (edited[name].double() - self.drop * factor * lower).to(weights[name].dtype)
        return edited

    def _rows(self, weights: Tensors, case: Case, found: Sequence[Evidence]) -> dict[str, Tensor]:
        """G: for each parameter that may move, what every constraint says of it [K, ...]; 0 where one says nothing."""
        names = {n for one in found for n in one.means if n in weights and self._weighed(n, case)}
        return {
            n: torch.stack([(one.means[n] if n in one.means else torch.zeros_like(weights[n])).double() for one in found])
            for n in sorted(names)
        }

    def _damped(self, rows: Tensors, case: Case) -> dict[str, Tensor]:
        """G P, of the same shapes."""
        if self.weigh != "moment":
            return {n: g / self._diagonal(n, g[0], case) for n, g in rows.items()}
        found = {}
        for name in (n for n in sorted(case.own.means) if n in rows):
            side, flat = self._side(case.own.means[name]), _flat(rows, name, len(case.own.means[name]))
            side, lines = side[: flat.shape[2], : flat.shape[2]], flat.flatten(0, 1)
            if self.share == 1:
                way = torch.linalg.solve(side, lines.T).T
            else:
                way = torch.stack([_within(side, line) for line in lines])
            way, width = way.reshape(flat.shape), rows[name][0, 0].numel()
            found[name] = way[..., :width].reshape(rows[name].shape)
            if len(side) > width:
                found[_bias(name)] = way[..., width]
        return found

    def _selected(self, rows: Tensors, case: Case) -> dict[str, Tensor]:
        """G with zeros for weights that are not among the `share` with the most evidence over own importance."""
        scores = {n: g.square().amax(0) / self._diagonal(n, g[0], case) for n, g in rows.items()}
        chosen = top(scores, self.share)
        return {n: torch.where(chosen[n], g, 0.0) for n, g in rows.items()}

    def _diagonal(self, name: str, like: Tensor, case: Case) -> Tensor:
        """The diagonal of P^-1 for one parameter, in its shape."""
        if self.weigh == "none":
            return torch.ones_like(like)
        own = case.own.means[self._as(name)]
        if self.weigh == "fisher":
            return own + (LAST_FISHER if self.layers == "last" else DEEP_FISHER) * (float(own.mean()) or 1.0)
        spread = self._side(own).diagonal()
        return (spread[-1] if name != self._as(name) else spread[: like[0].numel()].view_as(like[0])).expand_as(like)

    def _weighed(self, name: str, case: Case) -> bool:
        """Whether an heir was weighed on a parameter; what was not does not move."""
        return self.weigh == "none" or self._as(name) in case.own.means

    def _as(self, name: str) -> str:
        """Under which name that is: a bias is an input of its layer."""
        return name.removesuffix("bias") + "weight" if self.weigh == "moment" and name.endswith("bias") else name

    def _side(self, moment: Tensor) -> Tensor:
        """P^-1 of one layer: its moment with a ridge, over the mean of its diagonal."""
        size = float(moment.diagonal().mean()) or 1.0  # a layer that sees only zeros has no direction that does damage
        ridge = LAST if self.layers == "last" else DEEP
        return moment + ridge * size * torch.eye(len(moment), dtype=moment.dtype)


def kept_apart(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """All of it; what is said twice, to the bit, is heard once."""
    kept: list[Evidence] = []
    for one in evidence:
        if not any(one.about == k.about and one.enough == k.enough and equal(one.means, k.means) for k in kept):
            kept.append(one)
    return tuple(kept)


MERGES = {"apart": kept_apart, **VOTES}


def _reached(case: Case) -> list[Evidence]:
    """Evidence that shares anything with the heir; of that about a class, what is about one that it has an output for."""
    return [e for e in case.evidence if e.means and (not e.about or e.about in case.head.classes)]


def _lower(found: Sequence[Evidence], head: Head) -> Tensor:
    """Of each output [C], the largest decrease that is asked for its class; 0 for those that stay."""
    asked = [max((e.enough or 0.0 for e in found if e.about == c), default=0.0) for c in head.classes]
    return torch.tensor(asked, dtype=torch.float64)


def _within(side: Tensor, row: Tensor) -> Tensor:
    """P g of one unit, where only weights that were selected may move: those whose g is not 0."""
    moves, way = row.nonzero().flatten(), torch.zeros_like(row)
    way[moves] = torch.linalg.solve(side[moves][:, moves], row[moves])
    return way


def _bias(layer: str) -> str:
    return layer.removesuffix("weight") + "bias"


def _flat(rows: Tensors, layer: str, width: int) -> Tensor:
    """A layer's rows of G as matrices [K, outputs, inputs], the bias as their last column where moment and evidence have it."""
    weight, bias = rows[layer].flatten(2), _bias(layer)
    return torch.cat([weight, rows[bias][..., None]], 2) if weight.shape[2] < width and bias in rows else weight
