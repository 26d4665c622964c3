"""One heir on trial: its nets, the rows it can be judged on, and what its nets say to them, asked once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation.features import features
from fedunlearn.evaluation.material import SPLITS, Material
from fedunlearn.evaluation.outputs import logits
from fedunlearn.evaluation.relearn import Tuning
from fedunlearn.evaluation.shadows import Shadows, Unlearn
from fedunlearn.tensors import Head

FEWEST = 32  # peers of a few samples


@dataclass(frozen=True)
class Nets:
    """One heir, as it was, as it is, and as it might have been; all in eval mode, with the same outputs.

    Args:
        head: the last layer.
        before: before the edit.
        after: the candidate.
        retrained: the same model trained without the data; several seeds give the noise floor.
        mask: the logit mask, the trivial edit to be compared with.
    """

    head: Head
    before: nn.Module
    after: nn.Module
    retrained: tuple[nn.Module, ...] = ()
    mask: nn.Module | None = None

    @property
    def named(self) -> dict[str, nn.Module]:
        """Every net: "before", "after", "mask", "retrained", "retrained_2", ..."""
        mask = {} if self.mask is None else {"mask": self.mask}
        again = {"retrained" if i == 1 else f"retrained_{i}": net for i, net in enumerate(self.retrained, 1)}
        return {"before": self.before, "after": self.after, **mask, **again}

    @property
    def again(self) -> list[str]:
        """Names of the retrained ones."""
        return [name for name in self.named if name.startswith("retrained")]


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Args:
        shots: rows of each class that an attacker has.
        tuning: how the attacker fine-tunes.
        most: rows of each set of rows, at most; drawn by `seed` where there are more, and intervals say of how many.
        few: the same for what holds all layers' outputs at once.
        seed: of splits, folds and resampling.
        shadows: a pool for the audit (`train_shadows` on `Material.population`).
        unlearn: the method under test, for the audit to apply to each shadow model; without it the audit is weaker.
        why: it is not there, in words.
        innocents: a pool of models that never saw what is forgotten (`train_shadows` on `Material.population_without`), for
            those parts of the audit that compare with retrained models.
    """

    shots: int = 16
    tuning: Tuning = field(default_factory=Tuning)
    most: int = 10_000
    few: int = 512
    seed: int = 0
    shadows: Shadows | None = None
    unlearn: Unlearn | None = None
    why: str = "no way to unlearn the shadow models was given"
    innocents: Shadows | None = None


class Trial:
    """An heir's nets and rows, of which there are at most `most` in each of `parts`; what a net says to them is asked once.

    Besides those of `Material.parts` there are "peers": held-out rows that stand beside the forgotten ones under U-LiRA.

    Args:
        nets: the heir.
        material: the rows.
        effort: how hard to try.
        progress: told, in words, what is being done.

    Raises:
        InputError: rows are not labelled by the nets' head, or a net is in training mode.
    """

    def __init__(self, nets: Nets, material: Material, effort: Effort, progress: Callable[[str], None]) -> None:
        if material.test.classes != nets.head.classes:
            raise InputError(
                f"evaluation: rows are labelled by {list(material.test.classes)}, the head names {list(nets.head.classes)}"
            )
        training = [name for name, net in nets.named.items() if any(m.training for m in net.modules())]
        if training:
            raise InputError(f"evaluation: {', '.join(training)} in training mode, where outputs are others; call eval() first")
        self.nets, self.material, self.effort, self.progress = nets, material, effort, progress
        parts = {**material.parts, "peers": _peers(material, effort.seed)}
        self.parts = {name: at_most(rows, effort.most, effort.seed) for name, rows in parts.items()}
        self._logits: dict[tuple[str, str], Tensor] = {}
        self._features: dict[tuple[str, str], Rows] = {}
        self._margins: dict[bool, tuple[Tensor, Tensor]] = {}

    def logits(self, net: str, part: str) -> Tensor:
        """Outputs [N, C] of a net for one of the parts."""
        if (net, part) not in self._logits:
            self._logits[net, part] = logits(self.nets.named[net], self.parts[part])
        return self._logits[net, part]

    def features(self, net: str, split: str) -> Rows:
        """Inputs of a net's last layer for "calibration" or "test".

        Raises:
            InputError: the net goes on after its last linear layer.
        """
        if (net, split) not in self._features:
            rows = self.material.probed[SPLITS.index(split)]
            found = features(self.nets.named[net], self.nets.head, rows)
            if found is None:
                raise InputError(
                    f"the model goes on after {self.nets.head.layer!r}, so that its features are not what it decides by"
                )
            self._features[net, split] = found
        return self._features[net, split]

    def shadowed(self, unlearned: bool) -> tuple[Tensor, Tensor]:
        """Margins [K, N] of the shadow models on forgotten training rows and then their peers, and who was trained on what.

        Args:
            unlearned: after each was made to forget those of the rows that it was trained on, by the method under test.
        """
        assert self.effort.shadows is not None
        if unlearned not in self._margins:
            targets = joined([self.parts["forgotten_training"], self.parts["peers"]])
            unlearn = self.effort.unlearn if unlearned else None
            self._margins[unlearned] = self.effort.shadows.margins(targets, unlearn, self.progress)
        return self._margins[unlearned]


def _peers(material: Material, seed: int) -> Rows:
    """Held-out rows that shadow models forget with the forgotten ones, as they would be forgotten with them.

    Of a class that is all of them. Of samples as many as there are samples, or what is forgotten would be most of what a shadow
    model knows; and of a whole site test rows alone, as each shadow model must keep something.
    """
    if material.classes:
        return material.parts["others"]
    pool = material.parts["others"] if len(material.retained) else material.test.of(material.forgotten.counts())
    return at_most(pool, max(FEWEST, len(material.forgotten)), seed)


def at_most(rows: Rows, number: int, seed: int) -> Rows:
    """All rows, or so many of them drawn without order."""
    if len(rows) <= number:
        return rows
    return rows.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:number].sort().values)
