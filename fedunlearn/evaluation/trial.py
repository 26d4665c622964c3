"""One heir on trial: its nets, the rows it can be judged on, and what its nets say to them, asked once."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows, Selection, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation.backdoor import Trigger
from fedunlearn.evaluation.features import features
from fedunlearn.evaluation.outputs import logits
from fedunlearn.evaluation.relearn import Tuning
from fedunlearn.evaluation.shadows import Shadows, Unlearn
from fedunlearn.tensors import Head

SPLITS = ("calibration", "test")


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
class Material:
    """Rows that one heir can be judged on, labelled by its head, with keys that do not repeat. Any of them may be empty.

    Args:
        classes: that are to be forgotten; empty where the request is about samples or a whole site.
        forgotten: training rows that are to be forgotten.
        retained: training rows that stay.
        calibration: held-out rows that choices are made on.
        test: held-out rows that are read once.
        gone: classes forgotten earlier, which are no part of the rest.
        trigger: a backdoor that what is forgotten had planted, where there is one.
        measured: keys of the rows that the method measured; by default those to be forgotten.
        probing: calibration and test rows with those that the head cannot name, which only probes can use; by default there are
            none. A head without an output for a class proves nothing of the features below it.

    Raises:
        InputError: rows of the parts are labelled by different outputs, or keys repeat.
    """

    classes: tuple[str, ...]
    forgotten: Rows
    retained: Rows
    calibration: Rows
    test: Rows
    gone: tuple[str, ...] = ()
    trigger: Trigger | None = None
    measured: frozenset[str] | None = None
    probing: tuple[Rows, Rows] | None = None

    def __post_init__(self) -> None:
        parts = (self.forgotten, self.retained, self.calibration, self.test)
        if len({p.classes for p in parts}) > 1:
            raise InputError(f"evaluation: rows labelled by {sorted({p.classes for p in parts})}; expected one head for all")
        keys = [key for p in parts for key in p.keys]
        if len(set(keys)) != len(keys):
            raise InputError("evaluation: a row is in two of forgotten, retained, calibration and test; expected disjoint rows")

    @classmethod
    def at(
        cls,
        data: SiteData,
        head: Head,
        classes: Collection[str] = (),
        selections: Mapping[str, Selection] | None = None,
        *,
        shards: Collection[str] | None = None,
        gone: Collection[str] = (),
        trigger: Trigger | None = None,
    ) -> "Material":
        """What a place has of it.

        Args:
            data: the place's rows.
            head: the heir's last layer; rows of classes that it cannot name are for probes alone.
            classes: that are to be forgotten.
            selections: for each shard, which rows of it are to be forgotten; by default those of the classes, in every shard.
            shards: those that the heir was trained on here; all by default.
            gone: classes forgotten earlier.
            trigger: a backdoor that what is forgotten had planted.
        """
        chosen = selections if selections is not None else {s: Selection(tuple(classes)) for s in data.shards if classes}
        forgotten, retained = [Rows.empty(head.classes)], [Rows.empty(head.classes)]
        for shard in data.shards if shards is None else shards:
            every = data.all(shard)
            picked = set(data.selected(shard, chosen[shard]).keys) if shard in chosen else set()
            asked = [i for i, key in enumerate(every.keys) if key in picked]
            stays = [i for i, key in enumerate(data.training(shard).keys) if key not in picked]
            forgotten.append(_named(every.take(asked), head, shard))
            retained.append(_named(data.training(shard).take(stays).without(gone), head, shard))
        nothing = Rows.empty(head.classes)
        calibration, test = (data.held_out.get(split, nothing) for split in SPLITS)
        return cls(
            tuple(classes),
            _joined(forgotten),
            _joined(retained),
            _named(calibration, head, SPLITS[0]),
            _named(test, head, SPLITS[1]),
            tuple(gone),
            trigger,
            probing=(calibration, test),
        )

    @cached_property
    def parts(self) -> dict[str, Rows]:
        """The sets of rows that metrics are taken on.

        "forgotten" is what forgetting is judged on: held-out rows of the classes, or, where no class is named, the rows
        themselves; "forgotten_training" those rows in either case; "test" held-out rows of the rest; "others" held-out rows of
        the classes that the forgotten training rows have, which nobody trained on; "forgotten_inputs" as "forgotten", with
        rows that the head has no name for.
        """
        held = _joined([self.calibration, self.test])
        return {
            "forgotten": self.test.of(self.classes) if self.classes else self.forgotten,
            "forgotten_training": self.forgotten,
            "retained": self.retained,
            "test": self.test.without({*self.classes, *self.gone}),
            "forgotten_inputs": self.probed[1].of(self.classes) if self.classes else self.forgotten,
            "others": held.of(self.forgotten.counts()),
        }

    @property
    def probed(self) -> tuple[Rows, Rows]:
        """Calibration and test rows for probes."""
        return self.probing or (self.calibration, self.test)

    @property
    def population(self) -> Rows:
        """Everything: what a pool of shadow models is trained on halves of."""
        return _joined([self.forgotten, self.retained, self.calibration, self.test])

    @property
    def population_without(self) -> Rows:
        """Everything but what is forgotten: what a pool of models that never saw it is trained on halves of."""
        return _joined([part.without(self.classes) for part in (self.retained, self.calibration, self.test)])


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
    innocents: Shadows | None = None


class Trial:
    """An heir's nets and rows, of which there are at most `most` in each of `parts`; what a net says to them is asked once.

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
        self.parts = {name: at_most(rows, effort.most, effort.seed) for name, rows in material.parts.items()}
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
        """Margins [K, N] of the shadow models on forgotten training rows and then the others, and who was trained on what.

        Args:
            unlearned: after each was made to forget those of the rows that it was trained on, by the method under test.
        """
        assert self.effort.shadows is not None
        if unlearned not in self._margins:
            targets = joined([self.parts["forgotten_training"], self.parts["others"]])
            unlearn = self.effort.unlearn if unlearned else None
            self._margins[unlearned] = self.effort.shadows.margins(targets, unlearn, self.progress)
        return self._margins[unlearned]


def at_most(rows: Rows, number: int, seed: int) -> Rows:
    """All rows, or so many of them drawn without order."""
    if len(rows) <= number:
        return rows
    return rows.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:number].sort().values)


def _named(rows: Rows, head: Head, where: str) -> Rows:
    """Labelled by the head, and with keys that name where the rows are from: sets count their rows from 0, each for itself."""
    here = rows.for_head(head.classes)
    return replace(here, keys=tuple(f"{where}/{key}" for key in here.keys))


def _joined(parts: list[Rows]) -> Rows:
    """Several sets as one; empty ones may lack the inputs' shape."""
    return joined([p for p in parts if len(p)] or parts[:1])
