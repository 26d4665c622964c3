"""Evaluating afterwards what an unlearning did: what is missing of a tier is taken at the homes, and kept."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fedunlearn.errors import InputError, SiteError, few, unknown
from fedunlearn.evaluation import TIERS
from fedunlearn.lineage import Heir, Request, discover
from fedunlearn.methods import METHODS
from fedunlearn.runtime import Backend, Family, gone_from, names_of
from fedunlearn.runtime.backend import InProcess, Progress, check
from fedunlearn.runtime.books.cases import names_like
from fedunlearn.runtime.books.evaluations import Found, hashes_of, keep_results, named, read_result, write_results
from fedunlearn.runtime.books.records import record_of
from fedunlearn.runtime.evaluating import believed, evaluation_of, is_result
from fedunlearn.runtime.settle import alone, witness
from fedunlearn.runtime.tasks import Audit, Evaluated
from fedunlearn.scenario.files import of_family
from fedunlearn.scenario.places import retrained as retrain
from fedunlearn.scenario.requests import named_in
from fedunlearn.scenario.schema import Federated, Imported, Scenario
from fedunlearn.scenario.train import kept_from
from fedunlearn.store import Line
from fedunlearn.training import Recipe, seed_of

SHADOWS = 16  # in each pool of the audit
TOGETHER = 8  # models between one keeping and the next, where one process does one after another


def assess(
    family: Family,
    line: Line,
    tier: str,
    backend: Backend,
    *,
    retrained: bool = True,
    seeds: int = 1,
    progress: Progress = lambda _: None,
) -> Found:
    """Take what is missing of a tier, and of those below it, for every heir that a ledger line edited (held back or not).

    Rows, references and versions are those of the line, whatever was done since; but rows that were excluded since are no rows
    that stay. What is found is kept as it comes, and named by a ledger line, so that what was cut off goes on where it stopped,
    and nobody can drop what came of it, or take it until it pleases, unseen.

    Args:
        family: the family.
        line: of an unlearning, in its ledger.
        tier: "quick", "full" or "audit".
        backend: carries tasks to the homes, as `backend_of` gives it.
        retrained: compare with the family retrained without the data; it is trained where it is not there yet.
        seeds: how many retrained families, of different seeds; two or more give the noise floor. What was taken with fewer is
            taken again.
        progress: told, in words, what is being done.

    Returns:
        All that is kept of this line.

    Raises:
        InputError: no such tier, no seeds, or the line is not of an unlearning; or the family cannot be retrained.
        SiteError: homes failed or refused; names them. What others found is kept.
        BusyError: another command is at work on the family.
        StoreError: its ledger was cut; or as `Ledger.signer`.
    """
    if tier not in TIERS:
        raise unknown("tier", tier, TIERS)
    if seeds < 1:
        raise InputError(f"seeds: {seeds} retrained families, expected one or more")
    if line.kind != "unlearned":
        raise InputError(f"ledger line {line.number}: is {line.kind!r}; only what an unlearning edited is evaluated")
    facts, found = record_of(family, line).facts, assessed(family, line)
    edited = {m["name"]: m for m in facts["models"] if m["strength"] is not None}
    heirs = [h for h in discover(family.lineage, Request.from_json(facts["request"])).heirs if h.name in edited]
    least = seeds if retrained else 0
    todo = {
        t: missing
        for t in TIERS[: TIERS.index(tier) + 1]
        if (missing := [h for h in heirs if _retrained_in(found.get(h.name, {}).get(t)) < least])
    }
    if todo:
        _refuse_erased(family, line, tier, heirs, edited)
        with alone(family), backend.telling(progress):  # references are trained, and what is found is written
            try:
                for new in _taken(family, line, todo, edited, backend, least, progress):
                    for model, tiers in new.items():
                        found.setdefault(model, {}).update(tiers)
            finally:
                witness(family, backend)
    return found


def _taken(
    family: Family,
    line: Line,
    todo: Mapping[str, Sequence[Heir]],
    edited: Mapping[str, Mapping[str, Any]],
    backend: Backend,
    references: int,
    progress: Progress,
) -> Iterator[Found]:
    """What is missing, by tiers, as it is found and kept."""
    facts, scenario = line.body["record"]["facts"], of_family(family)
    request = Request.from_json(facts["request"])
    seeded = [scenario.model_copy(update={"seed": scenario.seed + i}) for i in range(references)]
    then = all(kept_from(family, one, request, line.number) for one in seeded)  # those of all seeds lack the same
    twins = [retrain(family, one, request, backend, progress, before=line.number, as_then=then) for one in seeded]
    gone = tuple(sorted({*gone_from(family, line.number), *(c for twin in twins for c in twin.gone)}))
    lacking = tuple(dict.fromkeys(words for twin in twins for words in twin.lacking))
    if lacking:
        progress(
            f"what is compared with lacks {', '.join(lacking)}, too: it was excluded since, and nothing may be trained on it"
        )
    for tier, missing in todo.items():
        done = 0
        for some in _rounds(tier, missing, TOGETHER if isinstance(backend, InProcess) else len(missing)):
            progress(f"{tier}: {few((h.name for h in some), TOGETHER)} ({done} of {len(missing)} models done)")
            versions = [(edited[h.name]["version_before"], edited[h.name]["version_after"]) for h in some]
            audits = [_audit(scenario, family, facts, edited[h.name]) if tier == "audit" else None for h in some]
            asked = zip(some, versions, audits, strict=True)
            tasks = [evaluation_of(h, tier, both, gone, twins, audit) for h, both, audit in asked]
            answers = backend.carry(tasks)
            new: Found = {}
            try:
                for heir, task, answer in zip(some, tasks, answers, strict=True):
                    if isinstance(answer, Evaluated):
                        about = {"version_before": task.before, "version_after": task.after}
                        new[heir.name] = {tier: {**believed(task, answer), **about}}
            finally:
                keep_results(family, line, new, lacking)
            check(tasks, answers, Evaluated, "what was found is kept")
            yield new
            done += len(some)


def _refuse_erased(
    family: Family, line: Line, tier: str, heirs: Sequence[Heir], edited: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse to compare with what is not there any more.

    Raises:
        InputError: says since when, and why.
    """
    where = f"{tier} of request {line.body['request']}"
    if (sealed := family.ledger.sealed.get(line.number)) is not None:
        raise InputError(
            f"{where}: it compares with the versions from before, which are erased since it was sealed on {sealed.time[:10]} "
            f"(ledger line {sealed.number}); take it before a seal. What was taken is reported"
        )
    if lacking := _collected(family, heirs, edited):
        raise InputError(
            f"{where}: versions of {', '.join(lacking)} that it compares have been erased since, as nothing needed them "
            f"(by a gc or a seal); take it before. What was taken is reported"
        )


def _collected(family: Family, heirs: Sequence[Heir], edited: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Heirs of whose versions before or after an edit one is gone, as far as their stores are on this machine."""
    here = {h.name: family.store(h.home) for h in heirs if family.store(h.home).folder.is_dir()}
    both = {name: {edited[name]["version_before"], edited[name]["version_after"]} for name in here}
    return [name for name, store in here.items() if not both[name] <= set(store.versions())]


def assessed(family: Family, line: Line) -> Found:
    """What was found of what a line edited, as ledger lines name it; what is gone or damaged, `fsck` and a report say."""
    found: Found = {}
    for (model, tier), hashed in named(family.ledger, line.number).items():
        with suppress(OSError, ValueError):
            found.setdefault(model, {})[tier] = read_result(family.folder, hashed, line, model, tier)
    return found


def keep_assessed(family: Family, line: Line, found: Any) -> Found:
    """Keep what was evaluated where the family lives, so that a report can be made here.

    Args:
        family: the family, or a copy of its plain files.
        line: of an unlearning, in its ledger.
        found: as `assess` gave it there; untrusted.

    Raises:
        SiteError: it is none, or not what the ledger names.
    """
    if not isinstance(found, dict) or not all(isinstance(of, dict) for of in found.values()):
        raise SiteError(f"what came home is no evaluation of ledger line {line.number}; nothing was kept")
    told = named(family.ledger, line.number)
    for name, tiers in found.items():
        for tier, result in tiers.items():
            hashed = hashes_of(line, {name: {tier: result}})[name][tier] if is_result(tier, result) else ""
            if hashed != told.get((name, tier)):
                told_of = f"evaluation of {name[:80]}, tier {tier[:40]!r}, that ledger lines name"
                raise SiteError(f"what came home is no {told_of}; nothing was kept")
    write_results(family.folder, line, found)
    return found


def line_of(family: Family, request: str | None = None, number: int | None = None) -> Line:
    """The newest unlearning, or the newest of one case that is in force; one that was rolled back if none is.

    Args:
        family: whose ledger it is.
        request: a name of the case.
        number: of the line itself, instead: an earlier try of a case, for example.

    Raises:
        InputError: there is none, or both are given.
    """
    lines = [line for line in family.ledger.lines if line.kind == "unlearned"]
    if not lines:
        raise InputError(f"{family.folder}: nothing to report; no request was carried out yet (fedunlearn unlearn)")
    if number is not None:
        if request is not None:
            raise InputError(f"--request {request} with --line {number}: give one of both")
        if number not in (known := {line.number: line for line in lines}):
            told = ", ".join(map(str, known))
            raise InputError(f"--line {number}: is no unlearning of {family.folder}; those are lines {told} (fedunlearn log)")
        return known[number]
    scenario = named_in(of_family(family)) if family.topology.exists() else ()  # a report needs none
    names = names_like(family, request, scenario) if request is not None else frozenset()
    asked = [line for line in lines if request is None or not names.isdisjoint((line.body["request"], *names_of(line)))]
    if not asked:
        raise unknown("request", request, (name for line in lines for name in names_of(line)), where="--request")
    standing = [line for line in asked if line.number not in family.ledger.undone] if request else asked
    return (standing or asked)[-1]


def _audit(scenario: Scenario, family: Family, facts: Mapping[str, Any], edited: Mapping[str, Any]) -> Audit | None:
    """How a model was trained from the start, and edited; None where that is not known.

    Of a chain of models it is as many epochs as all of them had, at the first one's learning rate.
    """
    name = edited["name"]
    chain = [scenario.models[name]]
    while chain[-1].source:
        chain.append(scenario.models[chain[-1].source[0]])
    if any(isinstance(spec, Imported) for spec in chain):
        return None
    epochs = sum(spec.settings[0] * (spec.rounds if isinstance(spec, Federated) else 1) for spec in chain)
    spec, head, lr = chain[0], family.lineage[name].head, chain[-1].settings[1]
    seed = seed_of(scenario.seed, name)
    recipe = Recipe(name, spec.place, (), head, epochs, lr, spec.batch, seed, "cpu", spec.precision, spec.schedule)
    code = facts.get("code", {})
    method = code.get("class") or (facts["method"] if facts["method"] in METHODS else "")
    settings, strength = (facts["settings"], edited["strength"]) if method else ({}, {})
    return Audit(recipe, SHADOWS, method, settings, strength, code.get("text", ""))


def _retrained_in(result: Mapping[str, Any] | None) -> int:
    """How many retrained models a result is beside; -1 where there is none."""
    return -1 if result is None else sum(net.startswith("retrained") for net in result["nets"])


def _rounds(tier: str, heirs: Sequence[Heir], most: int) -> Iterator[list[Heir]]:
    """Quick ones all at once; what takes minutes one a home at a time, of `most` homes, so that it is kept as it comes."""
    if tier == "quick":
        yield from [list(heirs)] if heirs else []
        return
    left: dict[str, list[Heir]] = {}
    for heir in heirs:
        left.setdefault(heir.home, []).append(heir)
    while left:
        yield [several.pop(0) for several in list(left.values())[:most]]
        left = {home: several for home, several in left.items() if several}
