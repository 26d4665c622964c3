"""Rows that one heir can be judged on, and which sets of them metrics are taken on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from fedunlearn.data import Rows, Selection, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation.backdoor import Trigger
from fedunlearn.tensors import Head

SPLITS = ("calibration", "test")


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
        shards: Mapping[str, Collection[str]] | None = None,
        gone: Collection[str] = (),
        trigger: Trigger | None = None,
    ) -> "Material":
        """What a place has of it.

        Args:
            data: the place's rows.
            head: the heir's last layer; rows of classes that it cannot name are for probes alone.
            classes: that are to be forgotten.
            selections: for each shard, which rows of it are to be forgotten; by default those of the classes, in every shard.
            shards: those that the heir, or an ancestor, was trained on here, and the classes of each that it used itself; by
                default all.
            gone: classes forgotten earlier.
            trigger: a backdoor that what is forgotten had planted.
        """
        chosen = selections if selections is not None else {s: Selection(tuple(classes)) for s in data.shards if classes}
        forgotten, retained = [Rows.empty(head.classes)], [Rows.empty(head.classes)]
        used = dict.fromkeys(data.shards) if shards is None else shards
        for shard, some in used.items():
            every, own = data.all(shard), data.training(shard, some)
            picked = set(data.selected(shard, chosen[shard]).keys) if shard in chosen else set()
            asked = [i for i, key in enumerate(every.keys) if key in picked]
            stays = [i for i, key in enumerate(own.keys) if key not in picked]
            forgotten.append(_named(every.take(asked), head, shard))
            retained.append(_named(own.take(stays).without(gone), head, shard))
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
        """What a pool of shadow models is trained on halves of: everything but held-out rows of classes forgotten earlier.

        Those of classes that the forgotten rows have are what these are told from, and stay.
        """
        gone = set(self.gone) - self.forgotten.counts().keys()
        return _joined([self.forgotten, self.retained, *(part.without(gone) for part in (self.calibration, self.test))])

    @property
    def population_without(self) -> Rows:
        """Everything but what is forgotten: what a pool of models that never saw it is trained on halves of.

        Held-out rows of its classes, too, where training rows of them stay here: a retrained model knows these.
        """
        absent = {*self.classes, *self.gone} - {c for c, n in self.retained.counts().items() if n}
        return _joined([part.without(absent) for part in (self.retained, self.calibration, self.test)])


def _named(rows: Rows, head: Head, where: str) -> Rows:
    """Labelled by the head, and with keys that name where the rows are from: sets count their rows from 0, each for itself."""
    here = rows.for_head(head.classes)
    return replace(here, keys=tuple(f"{where}/{key}" for key in here.keys))


def _joined(parts: list[Rows]) -> Rows:
    """Several sets as one; empty ones may lack the inputs' shape."""
    return joined([p for p in parts if len(p)] or parts[:1])
