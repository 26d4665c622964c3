"""What the open questions share: small families whose heir lacks what its root knew, methods, and what is asked of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import trained_on, within

from fedunlearn.compare import Choice, Subject, compare
from fedunlearn.evaluation import Gate, Scores
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, LogitMask, Steer
from fedunlearn.methods.fisher_mask import FisherMask
from fedunlearn.methods.lfssd import LFSSD
from fedunlearn.methods.ssd import SSD
from fedunlearn.runtime.backend import Progress
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.files import parse

Rows = list[dict[str, Any]]
Made = tuple[Rows, list[Mapping[str, Any]]]  # rows, and where they come from

FULL, BARE = "full", "bare"
KEPT = ("seed", "method", "request", "class", "heir", "depth", "target", "forgotten_before", "forgotten_after",
        "retained_before", "retained_after", "mask_retained", "retrained_forgotten", "retrained_retained", "rows_forgotten",
        "rows_retained", "strength", "status", "seconds", "evaluation_seconds", "retrain_seconds", "relearned",
        "relearned_retrained", "membership_auc", "membership_auc_retrained")  # fmt: skip

FIUN = Choice("fiun", FIUn())
SSD_ = Choice("ssd", SSD())
LFSSD_ = Choice("lfssd", LFSSD(per_heir=True))
FISHER_MASK = Choice("fisher mask", FisherMask(per_heir=True))
STEER = Choice("steer", Steer())
MASK = Choice("logit mask", LogitMask())
ALL = (FIUN, SSD_, LFSSD_, FISHER_MASK, STEER, MASK)

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LETTER_DATA = {
    "set": "tabular/letter-{part}.npz",
    "test": "tabular/letter-{part}.npz",
    "scale": 15,
    "limit": 250,
    "test_limit": 120,
}
TABLE: dict[str, Any] = {"data": LETTER_DATA, "net": {"name": "mlp", "hidden": 128}}  # 26 letters, 16 measurements each
SMALL: dict[str, Any] = {"data": {"set": "digits"}, "net": {"name": "mlp", "hidden": 64}}
IMAGES: dict[str, Any] = {"data": {"set": "digits"}, "net": {"name": "cnn", "channels": 8}}  # ten digits of 8x8 pixels


@dataclass(frozen=True)
class Question:
    """One open question.

    Args:
        name: of its result file, after `open_`.
        asks: the question.
        papers: which open questions of which papers it is.
        run: given a size, a folder to work in and somebody to tell, makes the rows.
    """

    name: str
    asks: str
    papers: tuple[str, ...]
    run: Callable[[str, Path, Progress], Made]


class Lenient(Gate):
    """Strengths are chosen for its limits, and whatever comes of it is committed, unevaluated: as if nobody looked."""

    @property
    def tiers(self) -> tuple[str, ...]:
        """None is looked at."""
        return ()

    def judge(
        self,
        target: str,
        before: Scores,
        after: Scores,
        retrained: Scores | None,
        evaluation: Mapping[str, Mapping[str, Any]] | None = None,
        absent: Collection[str] = (),
    ) -> tuple[list[str], list[str]]:
        """No objection."""
        del target, before, after, retrained, evaluation, absent
        return [], []


def family(name: str, base: Mapping[str, Any], lacks: Sequence[str] = (), heir: bool = True, **trained: Any) -> Scenario:
    """A root that one site trains, and an heir that another goes on training without some classes.

    Args:
        name: of the topology.
        base: data and net.
        lacks: classes that the heir's site lacks.
        heir: whether there is one.
        **trained: how the root is.
    """
    models: dict[str, Any] = {"root": {"born": "incremental", "site": FULL, "epochs": 12, **trained}}
    if heir:
        models["heir"] = {"born": "incremental", "from": ["root"], "site": BARE}
    data = {**base["data"], "without": {BARE: list(lacks)} if heir else {}, "share": {FULL: 3} if heir else {}}
    folder = str(Path(__file__).parent / "families")
    return parse({"name": name, "folder": folder, **base, "data": data, "models": models}, name)


def samples(scenario: Scenario, seed: int, share: float, parts: int = 1, site: str = FULL) -> list[Request]:
    """Disjoint requests for a share each of the rows that the root was trained on, drawn by the seed."""
    rows = trained_on(scenario, seed, site)
    order, each = np.random.default_rng([seed, 3]).permutation(len(rows)), max(1, round(share * len(rows)))
    drawn = [sorted(order[i * each : (i + 1) * each]) for i in range(parts)]
    return [Request(samples=tuple(rows[i] for i in one), id=f"{share:.0%} of the rows, {n}") for n, one in enumerate(drawn, 1)]


def classes(names: Sequence[str]) -> Request:
    """A request for classes, called by their number where there are several."""
    return Request(classes=tuple(names), id=names[0] if len(names) == 1 else f"{len(names)} classes")


def compared(
    cell: str,
    at: float,
    subject: Subject | Callable[[int], Subject],
    choices: Sequence[Choice],
    seeds: int,
    work: Path,
    say: Progress,
    tier: str = "",
) -> Made:
    """Rows of one cell of a comparison, all seeds, and where they come from.

    Args:
        cell: what is varied.
        at: the value it has.
        subject: of all seeds, or makes that of one.
        choices: methods.
        seeds: how many.
        work: the folder; what is there is not made again.
        say: told what is being done.
        tier: to which every edited model is evaluated.
    """
    rows, origins = Rows(), list[Mapping[str, Any]]()
    for seed in range(seeds):
        of = subject if isinstance(subject, Subject) else subject(seed)
        found = compare([of], choices, [seed], work, tier=tier, progress=within(say, f"{cell} {at:g}: "))
        rows += [{"cell": cell, "at": at, **{k: r[k] for k in KEPT}} for r in found["rows"]]
        origins.append({k: found[k] for k in ("versions", "commit", "host")})
    return rows, origins
