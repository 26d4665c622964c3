"""All that can be asked of a place, and all that it can answer. Plain values: names from menus, tensors, numbers.

Long because every message is here: what a place can be asked is read in one go.

Tasks name versions: nobody reads "the latest". Answers are untrusted and are checked before anything is merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fedunlearn.data import Selection
from fedunlearn.evaluation import Scores
from fedunlearn.importance import Importance
from fedunlearn.methods.base import Evidence, Strength, Want
from fedunlearn.tensors import Head, Tensors
from fedunlearn.training import Recipe

Parts = tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
"""What a model is weighed on at a place: of each shard, the classes that it used and the keys of rows to be left out."""


@dataclass(frozen=True)
class Question:
    """What scores are about.

    Args:
        classes: for class requests: scores are on held-out rows of these classes.
        selections: otherwise: the forgotten rows themselves, `shard name -> which rows`, as far as the place holds them.
        gone: classes forgotten before, which are no part of the rest any more.
    """

    classes: tuple[str, ...] = ()
    selections: Mapping[str, Selection] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Addressed:
    """What every task has beside what it asks for.

    Args:
        family: which family it is about, at a site that keeps a store of its own for all families (see `Family.id`); empty
            where the store is the family's own.
    """

    family: str = ""


@dataclass(frozen=True)
class Fetch(Addressed):
    """The weights of a version, for a site that is to measure it. A home may refuse."""

    place: str
    version: str


@dataclass(frozen=True)
class Fetched:
    """Answers `Fetch`."""

    weights: Tensors
    head: Head
    net: str = ""


@dataclass(frozen=True)
class Measure(Addressed):
    """Importance of a version's parameters for rows of one shard.

    Args:
        place: the shard's site.
        version: what is measured.
        shard: the shard's name at the site.
        statistic: of the menu in `fedunlearn.importance`.
        layers: which parameters.
        selection: rows to be forgotten; None for the rows that the model was trained on.
        classes: without a selection, the classes that the model used of the shard.
        left_out: keys of rows that are not measured all the same: those to be forgotten, of a model's own.
        sent: the version itself; None where the site has it in its own store.
        loss: what is differentiated.
        masked: for the loss "masked", the classes that its target lacks.
        method: the method whose number is to be calibrated along with it; empty where none is.
        settings: of that method.
        most: at most so many rows, evenly spread; 0 for all.
        precision: what sums are rounded to before they are sent.
    """

    place: str
    version: str
    shard: str
    statistic: str
    layers: str
    selection: Selection | None
    classes: tuple[str, ...]
    sent: Fetched | None = None
    loss: str = "labels"
    masked: tuple[str, ...] = ()
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    most: int = 0
    precision: str = "float64"
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        want: Want,
        place: str,
        version: str,
        shard: str,
        layers: str,
        selection: Selection | None,
        classes: tuple[str, ...] = (),
        sent: Fetched | None = None,
        left_out: tuple[str, ...] = (),
    ) -> Self:
        """The task for what a method wants."""
        about = (want.statistic, layers, selection, classes, sent, want.loss)
        return cls(place, version, shard, *about, most=want.rows, left_out=left_out)


@dataclass(frozen=True)
class Measured:
    """Answers `Measure`.

    Args:
        version: what was measured.
        importance: sums and count.
        read: how many rows were read for it: none when it came out of the bank.
        enough: the method's number, calibrated on the site's calibration rows; None where none was asked for.
        clip: the most that a row's gradient counts for; None where rows are not clipped.
        noise: standard deviation of the noise on the sums, over what one row may add at most.
    """

    version: str
    importance: Importance
    read: int
    enough: float | None = None
    clip: float | None = None
    noise: float = 0.0


@dataclass(frozen=True)
class Deposit(Addressed):
    """Measure a version on one shard class by class, and bank the sums of squares at the site: later evidence reads no row."""

    place: str
    version: str
    shard: str
    sent: Fetched | None = None


@dataclass(frozen=True)
class Deposited:
    """Answers `Deposit`: how many rows were read; none when it was banked before."""

    version: str
    read: int


@dataclass(frozen=True)
class Score(Addressed):
    """How a version does on the place's calibration and test rows, what it looks like, and what is there to weigh it.

    Args:
        place: whose rows.
        version: what is scored.
        question: what it is about.
        own_shards: what it would be weighed on here; to be counted.
        sent: the version itself; None where the place has it in its own store.
    """

    place: str
    version: str
    question: Question
    own_shards: Parts = ()
    sent: Fetched | None = None


@dataclass(frozen=True)
class Scored:
    """Answers `Score`: scores on both splits, names and shapes of the parameters, and rows of `own_shards` that may be used."""

    version: str
    head: Head
    shapes: Mapping[str, tuple[int, ...]]
    calibration: Scores
    test: Scores
    own_rows: int


@dataclass(frozen=True)
class Lot:
    """Rows of one shard of some site, by description."""

    site: str
    shard: str
    selection: Selection


@dataclass(frozen=True)
class Apply(Addressed):
    """Edit a version: choose the strength on calibration rows, write the candidate, score it on test rows.

    Args:
        place: the heir's home.
        version: what is edited; it stays.
        method: name of a method.
        settings: its settings.
        evidence: as the method merged it, in the heir's names and shapes.
        own: the heir's own means; None where all its data lies here and the worker measures them itself.
        own_shards: what it measures for that.
        question: what scores are about.
        before: the heir's calibration scores, from `Scored`.
        aim: the calibration scores to come to; None where nobody can say.
        limits: the gate's, on the distance to the aim and on what is lost on the rest.
        forgotten: for a method that needs them at the heir's home, the rows to be forgotten, wherever they lie.
        retained: the same for the heir's own rows.
    """

    place: str
    version: str
    method: str
    settings: Mapping[str, Any]
    evidence: tuple[Evidence, ...]
    own: Evidence | None
    own_shards: Parts
    question: Question
    before: Scores
    aim: Scores | None
    limits: tuple[float, float]
    forgotten: tuple[Lot, ...] = ()
    retained: tuple[Lot, ...] = ()


@dataclass(frozen=True)
class Applied:
    """Answers `Apply`.

    Args:
        base: the version that was edited.
        version: the candidate.
        strength: what was applied; None where none could be chosen, and the candidate is the version itself.
        rule: how it was chosen, in words.
        curve: (strength, forgotten, retained, size of the edit) on calibration rows for all that were tried.
        test: the candidate's scores on test rows.
        mask: the logit mask's scores on the same rows; None where no class is to be masked.
        read: rows of its own that were read to weigh it.
        passes: forward passes over the calibration rows that the choice took.
    """

    base: str
    version: str
    strength: Strength | None
    rule: str
    curve: tuple[tuple[Strength, float | None, float | None, float], ...]
    test: Scores
    mask: Scores | None
    read: int
    passes: int = 0


@dataclass(frozen=True)
class Audit:
    """What shadow models are made by.

    Args:
        recipe: how the heir was trained, from the start.
        shadows: how many models in each of two pools; even.
        method: that edited the heir, to be applied to each; empty where the ledger does not say which code it was.
        settings: of the method.
        strength: that the heir got.
        text: the hash of its files then, of a method that is not in the menu.
    """

    recipe: Recipe
    shadows: int
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    strength: Strength = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Evaluate(Addressed):
    """Take the metrics of one tier of an edited model, beside what it was, the logit mask, and retrained models.

    Args:
        place: the heir's home.
        tier: of `fedunlearn.evaluation.TIERS`: "quick" only looks, the others train on rows of the place.
        before: the version before the edit.
        after: the version after it.
        question: what it is about: with the classes, `selections` say which of the place's rows the heir is to forget.
        own_shards: the place's shards that the heir was trained on, and the classes used of each.
        retrained: versions of the same model retrained without the data; each of another seed.
        sent: those of them that are not in the place's own store.
        audit: what the audit needs; None for other tiers.
    """

    place: str
    tier: str
    before: str
    after: str
    question: Question
    own_shards: tuple[tuple[str, tuple[str, ...]], ...] = ()
    retrained: tuple[str, ...] = ()
    sent: Mapping[str, Fetched] = field(default_factory=dict)
    audit: Audit | None = None


@dataclass(frozen=True)
class Evaluated:
    """Answers `Evaluate`.

    Args:
        before: what was evaluated.
        after: what was evaluated.
        found: as `fedunlearn.evaluation.evaluate` gives it.
    """

    before: str
    after: str
    found: Mapping[str, Any]


@dataclass(frozen=True)
class Commit(Addressed):
    """What the ledger says of this place; doing it twice is doing it once.

    Args:
        place: the place.
        heads: current version of every model whose home this is.
        exclusions: what it must not train on, by request.
        lines: hashes of all ledger lines up to that which this follows from; what was acknowledged once must be among them.
    """

    place: str
    heads: Mapping[str, str]
    exclusions: Mapping[str, Selection]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Committed:
    """Answers `Commit`.

    Args:
        line: hash of the ledger line that the place has acknowledged.
        before: of the one that it had acknowledged until then; empty where it had none.
    """

    line: str
    before: str = ""


@dataclass(frozen=True)
class Seal(Addressed):
    """Erase for good what would undo sealed requests; doing it twice is doing it once.

    Args:
        place: the place.
        keep: every version of the family that is still needed, wherever it lies; all others here are erased.
        forgotten: rows whose banked importances are erased too, by request.
        line: hash of the ledger line that sealed the last of them.
        lines: hashes of all ledger lines, as `Commit` has them.
    """

    place: str
    keep: tuple[str, ...]
    forgotten: Mapping[str, Selection]
    line: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sealed:
    """Answers `Seal`: how many versions, tensors and banked entries were erased, and how many bytes that were."""

    line: str
    versions: int
    tensors: int
    banked: int
    bytes: int


@dataclass(frozen=True)
class Survey(Addressed):
    """What a place could train on, as far as the lineage will record it anyway.

    Args:
        place: the place.
        shards: the shards that it is asked about.
        without: what is to be left out beside its own exclusions (for a retrained reference), by request.
        again: what is trained is only to compare with, so that rows that have come since are rightly left out.
    """

    place: str
    shards: tuple[str, ...] = ()
    without: Mapping[str, Selection] = field(default_factory=dict)
    again: bool = False


@dataclass(frozen=True)
class Surveyed:
    """Answers `Survey`.

    Args:
        shards: of each shard, how many rows of each class may be trained on.
        classes: what each shard names, in its own order, classes without a row included.
        shape: of one input; empty for a place without shards.
        tests: held-out rows to test on, of each class.
        withheld: of each shard, how many rows requests on other families have excluded there, where any.
    """

    shards: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, tuple[str, ...]]
    shape: tuple[int, ...]
    tests: Mapping[str, int]
    withheld: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Train(Addressed):
    """Train a model on rows of one shard. The same task gives the same version, however often it is done.

    Args:
        place: the shard's site.
        recipe: its settings; the site computes on a device of its own choice.
        born: "federated" (one client's part of a round), "incremental" or "transfer".
        shard: the shard's name at the site.
        classes: rows of these classes are used; what is excluded at the site never is.
        net: which of the family's architectures; empty for its own.
        versions: what it starts from, averaged where there are several.
        sent: those of the versions that are not in the site's own store.
        start: weights that the versions do not give: all where there are no versions, a fresh head where the head is
            replaced or grows.
        layers: for a transfer, what is trained: "head" or "all".
        without: what is left out beside the site's own exclusions (for a retrained reference), by request.
        keep: write the model into the site's own store.
        give: send its weights back.
    """

    place: str
    recipe: Recipe
    born: str
    shard: str
    classes: tuple[str, ...]
    net: str = ""
    versions: tuple[str, ...] = ()
    sent: Mapping[str, Fetched] = field(default_factory=dict)
    start: Tensors = field(default_factory=dict)
    layers: str = "head"
    without: Mapping[str, Selection] = field(default_factory=dict)
    keep: bool = False
    give: bool = False


@dataclass(frozen=True)
class Trained:
    """Answers `Train`.

    Args:
        version: its name in the site's store; empty where it was not to be kept.
        rows: how many of each class it was trained on.
        weights: empty where they were not to be given.
        head: names of its outputs.
    """

    version: str
    rows: Mapping[str, int]
    weights: Tensors
    head: Head


@dataclass(frozen=True)
class Failure:
    """Answers any task that could not, or would not, be done.

    Args:
        place: who says so.
        text: why.
        wrong_input: whether what the user asked for is at fault, not the site.
        offline: whether the place did not answer at all; for backends to say, never for the place itself.
        overtaken: whether it knows a ledger line that the ledger of whoever asks lacks.
    """

    place: str
    text: str
    wrong_input: bool = False
    offline: bool = False
    overtaken: bool = False


Task = Fetch | Measure | Deposit | Score | Apply | Evaluate | Commit | Seal | Survey | Train
Answer = Fetched | Measured | Deposited | Scored | Applied | Evaluated | Committed | Sealed | Surveyed | Trained | Failure
