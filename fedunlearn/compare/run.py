"""Runs a comparison: for every topology and seed one family, for every request and method one copy of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from fedunlearn.compare.asked import Choice, Subject, check, check_layers, check_names_of, check_samples
from fedunlearn.compare.cells import cells_of, summary_of
from fedunlearn.compare.clock import Clock, Step
from fedunlearn.compare.deeper import NOTHING, check_tier, deeper
from fedunlearn.compare.origin import aged, joined
from fedunlearn.compare.same import check_same
from fedunlearn.compare.work import Nest, Plain, kept, read
from fedunlearn.errors import FedUnlearnError, raised
from fedunlearn.lineage import Lineage, Plan, Request, discover
from fedunlearn.lineage.plan import NOT_EXPRESSIBLE
from fedunlearn.runtime import Family, InProcess, Progress, Reference, Worker, score_all, unlearn
from fedunlearn.runtime.tasks import Answer, Deposit, Measure, Task
from fedunlearn.scenario import Scenario, retrained, workers
from fedunlearn.scenario.build import Opened, open_data
from fedunlearn.scenario.overlap import told_seen

FAILED = "failed"
SPENT = (  # of what a record says it cost
    "seconds", "evaluation_seconds", "measure_seconds", "rows_read", "rows_calibrated", "bytes_up",
)  # fmt: skip
TRAINING, RETRAINING = "training", "retraining"  # the latter with the scores before

Twin = Callable[[], Reference]
OpenFamily = Callable[[], tuple[Family, dict[str, Worker]]]


def compare(
    subjects: Sequence[Subject],
    choices: Sequence[Choice],
    seeds: Sequence[int],
    work: Path,
    reference: bool = True,
    tier: str = "",
    *,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Compare methods on families of topologies.

    A method that fails or refuses is a row like any other, and leaves the models as they were.

    Args:
        subjects: topologies, and what their families are asked to forget.
        choices: methods.
        seeds: one family of every topology is trained for each.
        work: where families and results are kept meanwhile (see `work`); a second run goes on there.
        reference: retrain every family without the data of every request, to compare with.
        tier: what to take of every edited model beside its scores: "quick", "full", or nothing.
        progress: told, in words, what is being done and how long the rest may take.

    Returns:
        Plain data: `rows`, one for every topology, seed, request, method, heir and forgotten class; `cells`, those of all
        seeds together; `summary`, a line a topology and method; what was asked; where it comes from.

    Raises:
        InputError: a name, a class, a sample (at any of the seeds), a layer, a tier or a topology is wrong. Nothing is trained
            then.
    """
    check(subjects, choices)
    check_tier(tier)
    for subject in subjects:
        opened = partial(_opened_data, work, subject.scenario)
        first = opened(seeds[0])
        check_names_of(subject, [c for names in first.classes.values() for c in names])
        check_layers(subject, choices, first.places)
        check_samples(subject, seeds, opened)
        for note in told_seen(first):
            progress(f"note: {subject.scenario.name}: {note}")
    clock = planned(subjects, choices, seeds, work, reference, tier)
    rows: list[dict[str, Any]] = []
    origins: list[Mapping[str, Any]] = []
    for subject in subjects:
        for seed in seeds:
            nest = Nest.of(work, subject.scenario, seed)
            with nest.alone():
                for row, made in _rows(nest, subject, seed, choices, reference, tier, clock, progress):
                    rows += row
                    origins += made
    limits = {s.scenario.name: s.scenario.gate.gate for s in subjects}
    return {
        "seeds": list(seeds),
        "topologies": {s.scenario.name: [r.to_json() for r in s.requests] for s in subjects},
        "limits": {name: vars(gate) for name, gate in limits.items()},
        "methods": [c.to_json() for c in choices],
        "reference": reference,
        "tier": tier,
        **joined(origins),
        "summary": summary_of(rows, limits),
        "cells": cells_of(rows, limits),
        "rows": rows,
    }


def failed_everywhere(result: Mapping[str, Any]) -> list[str]:
    """Methods that failed at every model of a comparison."""
    done = {row["method"] for row in result["rows"] if row["status"] != FAILED}
    return [name for name in dict.fromkeys(row["method"] for row in result["rows"]) if name not in done]


def planned(
    subjects: Sequence[Subject],
    choices: Sequence[Choice],
    seeds: Sequence[int],
    work: Path,
    reference: bool = True,
    tier: str = "",
) -> Clock:
    """What such a comparison has to do, and how long that takes as far as it is known; trains nothing."""
    steps = _steps(subjects, choices, seeds, work, reference, tier)
    return Clock.of((step, None if found is None else found["wall"]) for step, found in steps)


def older(
    subjects: Sequence[Subject],
    choices: Sequence[Choice],
    seeds: Sequence[int],
    work: Path,
    reference: bool = True,
    tier: str = "",
) -> str:
    """What of it is kept from other commits of this package than today's, in words; nothing where that is not known."""
    return aged(found["origin"]["commit"] for _, found in _steps(subjects, choices, seeds, work, reference, tier) if found)


def _opened_data(work: Path, scenario: Scenario, seed: int) -> Opened:
    nest = Nest.of(work, scenario, seed)
    return open_data(nest.scenario, nest.family)


def _steps(
    subjects: Sequence[Subject], choices: Sequence[Choice], seeds: Sequence[int], work: Path, reference: bool, tier: str
) -> Iterator[tuple[Step, Plain | None]]:
    """Every step of a comparison, with what is kept of it."""
    for subject in subjects:
        name = subject.scenario.name
        for nest in (Nest.of(work, subject.scenario, seed) for seed in seeds):
            yield (name, TRAINING), read(nest.trained)
            for request in subject.requests:
                yield (name, RETRAINING), read(nest.before(request, reference))
                for choice in (c.at(nest.scenario.seed) for c in choices):
                    yield (name, choice.label), read(nest.after(request, reference, choice, tier))


def _rows(
    nest: Nest,
    subject: Subject,
    seed: int,
    choices: Sequence[Choice],
    reference: bool,
    tier: str,
    clock: Clock,
    progress: Progress,
) -> Iterator[tuple[list[dict[str, Any]], list[Mapping[str, Any]]]]:
    """All rows of one family, a request and method at a time, and where they come from."""
    name = subject.scenario.name

    def say(text: str) -> None:
        progress(f"{name}, seed {seed}: {text} ({clock.words()})")

    def step(what: str, path: Path, make: Callable[[], Plain], text: str = "") -> Plain:
        fresh = not path.exists()
        if fresh and text:
            say(text)
        plain = kept(path, make)
        if fresh:
            clock.done((name, what), plain["wall"])
        return plain

    trained = step(TRAINING, nest.trained, partial(nest.train, say))
    opened = cache(partial(_opened, nest))  # where all is kept, also without the family: it may have been made elsewhere
    for request in subject.requests:
        twin = cache(partial(_twin, opened, nest, request, say)) if reference else Reference
        before = step(RETRAINING, nest.before(request, reference), partial(_before, opened, request, twin))
        clocks = {"train_seconds": trained["wall"], "retrain_seconds": before["wall"] if reference else None}
        for choice in (c.at(seed) for c in choices):
            path, text = nest.after(request, reference, choice, tier), f"{choice.label} on {request.words()}"
            after = step(choice.label, path, partial(_after, nest, request, choice, twin, reference, tier, before), text)
            origins = [trained["origin"], before["origin"], after["origin"]]
            made = {"topology": name, "seed": seed, "request": request.id, "method": choice.label}
            made |= {"simulation": choice.simulation, "commit": " + ".join(dict.fromkeys(o["commit"] for o in origins))}
            yield [made | _joined(heir, after) | clocks for heir in before["heirs"]], origins


def _opened(nest: Nest) -> tuple[Family, dict[str, Worker]]:
    family = Family.open(nest.family)
    return family, workers(nest.scenario, family)


def _twin(opened: OpenFamily, nest: Nest, request: Request, say: Progress) -> Reference:
    family, places = opened()
    return retrained(family, nest.scenario, request, InProcess(places), say)


def _joined(heir: Plain, after: Plain) -> dict[str, Any]:
    """One heir and class, before and after. Where a method failed, every heir is as it was."""
    if "failed" in after:
        same = {f"{what}_after": heir[f"{what}_before"] for what in ("forgotten", "retained")}
        nothing = dict.fromkeys(("mask_retained", "strength", "rule", "passes", *SPENT))
        return heir | same | nothing | NOTHING | {"status": FAILED, "why": after["failed"]}
    found = dict(after["heirs"][heir["heir"]])
    by_class, measured, elsewhere = found.pop("by_class"), found.pop("measured", NOTHING), found.pop("elsewhere", {})
    if not heir["class"] and heir["forgotten_before"] is None:  # its home has no row to tell; sites of the roots may have
        heir = heir | elsewhere
    if heir["class"]:
        found["forgotten_after"] = by_class.get(heir["class"])
    return {**heir, **found, **measured, **{k: after.get(k) for k in SPENT}}


def _before(opened: OpenFamily, request: Request, twin: Twin) -> Plain:
    """Every heir of a request as it is and as retrained: a row for each class, or one where none is named."""
    family, places = opened()
    plan = discover(family.lineage, request)
    scored = score_all(family, plan, InProcess(places))
    again = twin().scored if plan.heirs else {}
    depth, rows = _depths(family.lineage, plan), []
    for heir in plan.heirs:
        model, now = family.lineage[heir.name], scored[heir.name].test
        other = again[heir.name].test if heir.name in again else None
        for c in heir.classes or ("",):
            named = not c or c in model.head
            row: Plain = {
                "heir": heir.name,
                "class": c,
                "home": heir.home,
                "born": model.born,
                "depth": depth[heir.name],
                "holds_class": heir.holds_class,
                "target": heir.target if named else NOT_EXPRESSIBLE,
                "forgotten_before": now.by_class.get(c) if c else now.forgotten,
                "retrained_forgotten": (other.by_class.get(c) if c else other.forgotten) if other else None,
                "rows_forgotten": _held(places[heir.home], c) * named if c else now.rows_forgotten,
                "retained_before": now.retained,
                "retrained_retained": other.retained if other else None,
                "rows_retained": now.rows_retained,
            }
            rows.append(row)
    return {"heirs": rows}


def _held(worker: Worker, c: str) -> int:
    """Test rows of a class at a place."""
    return len(worker.data.held_out["test"].of([c])) if "test" in worker.data.held_out else 0


def _depths(lineage: Lineage, plan: Plan) -> dict[str, int]:
    """How many kept models lie between each heir and one that was trained on what is asked; 0 if it was itself."""
    found: dict[str, int] = {}
    for name in (m.name for m in lineage.models if m.name in plan.classes_of):  # in order of time: parents first
        direct = any(map(plan.request.touches, lineage.own(name)))
        above = [found[p] for p in lineage.kept_parents(name) if p in found]
        found[name] = 0 if direct or not above else 1 + max(above)
    return found


class _Clocked(InProcess):
    """Tells the seconds that evidence took to measure, apart from scoring, which a record counts with it."""

    measured = 0.0

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        answers: list[Answer] = []
        for task in tasks:
            started = time.perf_counter()
            answers += super().carry([task])
            self.measured += (time.perf_counter() - started) * isinstance(task, Measure | Deposit)
        return answers


def _after(nest: Nest, request: Request, choice: Choice, twin: Twin, reference: bool, tier: str, before: Plain) -> Plain:
    """Every heir as a method leaves it, on a copy of the family, evaluated to a tier; or why it failed."""
    with nest.copy() as family:
        backend = _Clocked(workers(nest.scenario, family), simulation=True)
        try:
            record = unlearn(family, request, choice.method, backend, nest.scenario.gate.gate, retrained=twin)
        except OSError:
            raise  # the disk's fault, not the method's
        except FedUnlearnError as error:
            return {"failed": str(error)}
        except Exception as error:  # a method of the user's own may raise anything
            return {"failed": raised(error)}
        names = [m["name"] for m in record.facts["models"]]
        check_same(before["heirs"], {m["name"]: m for m in record.facts["models"]}, nest.before(request, reference))
        measured = deeper(family, tier, backend, reference, names) if tier and names else {}
    heirs = {}
    for m in record.facts["models"]:
        texts = [o["text"] for o in record.facts["objections"] if o["model"] == m["name"]]
        taken = ("forgotten_after", "retained_after", "mask_retained", "strength", "rule", "passes", "status")
        heirs[m["name"]] = {**{k: m[k] for k in taken}, "by_class": m["forgotten_by_class"], "why": "; ".join(texts)}
        heirs[m["name"]]["elsewhere"] = {k: m[k] for k in ("forgotten_before", "retrained_forgotten", "rows_forgotten")}
        if m["name"] in measured:
            heirs[m["name"]]["measured"] = measured[m["name"]]
    spent = {k: record.cost[k] for k in SPENT} | {"evaluation_seconds": sum(record.cost["evaluation_seconds"].values())}
    return {**spent, "measure_seconds": backend.measured, "heirs": heirs}
