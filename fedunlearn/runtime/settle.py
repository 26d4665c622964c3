"""The ledger decides; places follow. Settling makes every place hold what the ledger says, and may be repeated."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fedunlearn.data import MIRROR, Selection
from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Request
from fedunlearn.runtime.backend import Backend, InProcess, ask, check
from fedunlearn.runtime.books.cases import names_like
from fedunlearn.runtime.books.evaluations import KIND as EVALUATED
from fedunlearn.runtime.books.family import NOTE, Family
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.runtime.place.mirror import Mirror
from fedunlearn.runtime.place.worker import Worker
from fedunlearn.runtime.tasks import Answer, Commit, Committed, Failure, Question, Score, Scored
from fedunlearn.store import Line


def settle(
    family: Family, backend: Backend, quorum: float = 1.0, joining: Sequence[str] = (), otherwise: str | None = None
) -> None:
    """Send every place its current heads and exclusions, and note who has acknowledged them.

    Args:
        family: the family.
        backend: carries the commits.
        quorum: with less than 1, places that are offline are no error; they stay behind, and settling again reaches them.
        joining: places that are about to join the family, and are told what is excluded there, too.
        otherwise: what holds when a place failed, in words; by default that the last line does, and settling again finishes.

    Raises:
        SiteError: a place failed.
        BusyError: another command is at work.
        StoreError: the ledger was cut, or its signatures are not of its lines.
    """
    family.ledger.check_signatures()
    refuse_cut(family)
    line = family.ledger.lines[-1]
    told = _tell(family, backend, (*family.places, *joining), joining)
    kept = [(t, a) for t, a in told if quorum == 1 or not (isinstance(a, Failure) and a.offline)]  # those stay behind
    committed = f"committed (ledger line {line.number}), but not yet everywhere; run `fedunlearn settle`"
    check([t for t, _ in kept], [a for _, a in kept], Committed, otherwise or committed)


def witness(family: Family, backend: Backend) -> None:
    """Have the places in the family's folder acknowledge the ledger, whose last lines change nothing for any.

    Those elsewhere follow with the next line that does: whoever evaluates a copy of a family must not have its sites, which it
    shares with the family, acknowledge what the family's own ledger lacks.
    """
    here = [place for place in family.places if not family.elsewhere and family.store(place).folder.is_dir()]
    _tell(family, backend, here)


def _tell(family: Family, backend: Backend, places: Sequence[str], joining: Sequence[str] = ()) -> list[tuple[Commit, Answer]]:
    """Send places what the ledger says of them, and note who has acknowledged it."""
    heads, excluded = family.heads, exclusions(family, joining=joining)
    lines = family.ledger.hashes
    tasks = []
    for place in places:
        tasks.append(Commit(place, family.homed(heads, place), excluded.get(place, {}), lines))
    with family.ledger.alone():
        told = list(zip(tasks, backend.carry(tasks), strict=True))
        noted, aware = family.acknowledged, since_seal(family)
        back = [t.place for t, a in told if isinstance(a, Committed) and aware and a.before not in aware]
        # what had acknowledged this very line and lacks something of it now was brought back from before it
        lost = {t.place: None for t, a in told if _is_refusal(a) and noted.get(t.place) == lines[-1]}
        family.note_acknowledged(lost | {t.place: a.line for t, a in told if isinstance(a, Committed) and a.line == lines[-1]})
        family.note_erased(dict.fromkeys([*back, *(lost if aware else ())]))
    return told


def _is_refusal(answer: Answer) -> bool:
    return isinstance(answer, Failure) and not answer.offline and not answer.overtaken


def since_seal(family: Family) -> tuple[str, ...]:
    """Hashes of the last "sealed" line and all behind it; none where nothing is sealed.

    A place that has acknowledged none of these knows nothing of the seal: it has (again) what it was to erase.
    """
    sealed = max((x.number for x in family.ledger.lines if x.kind == "sealed"), default=None)
    return () if sealed is None else family.ledger.hashes[sealed:]


def behind(family: Family) -> tuple[str, ...]:
    """Places that have not acknowledged the last line that says something to places: by their own mirror, where it is here."""
    lines = family.ledger.lines
    last = max((line.number for line in lines if _is_for_places(line)), default=0)
    up_to_date = {line.hash for line in lines[last:]}
    return tuple(place for place, line in known_lines(family).items() if line not in up_to_date)


def _is_for_places(line: Line) -> bool:
    """Whether a ledger line may change what a place has to hold or to leave out."""
    return line.kind != EVALUATED and not (line.kind == "trained" and not line.body["heads"])


def known_lines(family: Family) -> dict[str, str | None]:
    """The ledger line that each place has acknowledged last: by its own mirror where it is on this machine."""
    noted = family.acknowledged
    found: dict[str, str | None] = {}
    for place in family.places:
        store = family.store(place)
        if not store.folder.is_dir():
            found[place] = noted.get(place)
        else:
            found[place] = known.line or None if (known := Mirror.of(store)) else None
    return found


@contextmanager
def alone(family: Family, backend: Backend | None = None, but: Collection[str] = ()) -> Iterator[None]:
    """Nobody else changes the family meanwhile, and its ledger lacks no line that a place has acknowledged.

    What places on this machine have acknowledged is read there. A note in the family's folder tells of all others, but a folder
    restored from a backup has the note of that day: with a backend these are asked, and told, before a line is written.

    Args:
        family: the family.
        backend: reaches the places; whoever is offline is not waited for.
        but: places that are not asked.

    Raises:
        BusyError: another command does.
        StoreError: the ledger was cut; or as `Ledger.signer`.
        InputError: as `Ledger.signer`; or the backend's workers are of another family.
    """
    with family.ledger.alone():
        _ = family.ledger.signer()
        refuse_cut(family)
        if backend is not None:
            _refuse_others_workers(family, backend)
            _refuse_overtaken(family, backend, but)
        yield


def _refuse_others_workers(family: Family, backend: Backend) -> None:
    """Workers of a copy would do all of it there, and the ledger would say it here."""
    for place, worker in backend.workers.items() if isinstance(backend, InProcess) and not family.id else ():
        if isinstance(worker, Worker) and place in family.places:
            kept, own = worker.store.folder.resolve(), family.store(place).folder.resolve()
            if kept != own:
                raise InputError(
                    f"backend: its worker for {place} keeps models in {kept}, this family's are in {own}; make a backend for "
                    f"this family (fedunlearn.scenario.backend_of)"
                )


def _refuse_overtaken(family: Family, backend: Backend, but: Collection[str]) -> None:
    far = [place for place in family.places if place not in but and not family.store(place).folder.is_dir()]
    told = _tell(family, backend, far) if far else []
    if knows := [answer for _, answer in told if isinstance(answer, Failure) and answer.overtaken]:
        raise StoreError(f"{_lacking(family, (a.place for a in knows))}. {knows[0].place}: {knows[0].text}")


def cut(family: Family) -> str:
    """What to say when places have acknowledged a line that the ledger lacks; empty when there is none."""
    if not family.ledger.lines:
        return ""  # it is still to be trained
    known = set(family.ledger.hashes)
    lacking = {place: line for place, line in known_lines(family).items() if line is not None and line not in known}
    if not lacking:
        return ""
    return _lacking(family, (f"{place} ({line[:12]})" for place, line in lacking.items()))


def refuse_cut(family: Family) -> None:
    """Refuse to go by a ledger that was cut: what is in force nobody here knows.

    Raises:
        StoreError: places have acknowledged a line that it lacks.
    """
    if words := cut(family):
        raise StoreError(words)


def _lacking(family: Family, who: Iterable[str]) -> str:
    return (
        f"{family.ledger.path}: lacks ledger lines that places have acknowledged: {', '.join(who)}; it was cut, rewritten, or "
        f"restored from an older backup: restore the newest one. If there is none, delete {NOTE} and these places' {MIRROR}, "
        f"then settle"
    )


def exclusions(family: Family, upto: int | None = None, joining: Iterable[str] = ()) -> dict[str, dict[str, Selection]]:
    """Per site and request, what is excluded from training: by every unlearning whose exclusion no rollback has lifted.

    A rollback that lifts the exclusion of a request lifts those, too, that earlier rollbacks of that request had left.

    Args:
        family: the family.
        upto: as of before this ledger line.
        joining: places that are about to join the family.
    """
    found: dict[str, dict[str, Selection]] = {}
    for line in _excluding(family, upto):
        for site, chosen in excluded_by(family, line, joining).items():
            found.setdefault(site, {})[line.body["request"]] = chosen
    return found


def excluded_by(family: Family, line: Line, joining: Iterable[str] = ()) -> dict[str, Selection]:
    """Per site, what an "unlearned" line excludes from training; whoever has joined since is meant, too."""
    told = {site: Selection(tuple(one["classes"]), tuple(one["samples"])) for site, one in line.body["exclusions"].items()}
    request = request_in(line)
    everywhere = tuple(c for one in request.merges or (request,) if not one.sites for c in one.classes)
    if told and everywhere:
        told |= {site: Selection(classes=everywhere) for site in (*family.places, *joining) if site not in told}
    return told


def still_excluded(family: Family, line: Line) -> tuple[str, ...]:
    """Requests by which some of what an "unlearned" line excludes is (or may be) excluded now."""
    now, told = exclusions(family), line.body["exclusions"]
    own = {site: Selection(tuple(one["classes"]), tuple(one["samples"])) for site, one in told.items()}
    return tuple(dict.fromkeys(name for site in own for name, other in now.get(site, {}).items() if own[site].meets(other)))


def excluded(family: Family, before: int | None = None) -> tuple[Request, ...]:
    """Requests whose data may not be trained on, in force or rolled back, in order of time; as of before that ledger line."""
    lines = [line for line in _excluding(family, before) if line.body["exclusions"]]
    return tuple(dict.fromkeys(map(request_in, lines)))


def _excluding(family: Family, upto: int | None) -> list[Line]:
    """Unlearnings whose exclusion no rollback has lifted."""
    lines = family.ledger.lines[:upto]
    undone, lifted = set[int](), set[int]()
    for line in (x for x in lines if x.kind == "rolled back"):
        undone.add(line.body["undoes"])
        if line.body["lifted"]:
            lifted |= {n for n in undone if request_in(lines[n]).what == request_in(lines[line.body["undoes"]]).what}
    return [x for x in lines if x.kind == "unlearned" and x.number not in lifted]


def in_force(family: Family, before: int | None = None) -> tuple[Request, ...]:
    """Requests that changed a model and have not been rolled back, in order of time; as of before that ledger line, if any."""
    so_far = family.ledger.lines[:before]
    undone = {x.body["undoes"] for x in so_far if x.kind == "rolled back"}
    lines = [x for x in so_far if x.kind == "unlearned" and x.body["heads"] and x.number not in undone]
    return tuple(dict.fromkeys(map(request_in, lines)))


def undoable(family: Family, request: str | None = None, named: Sequence[Request] = ()) -> Line:
    """The newest unlearning in force, which is what a rollback undoes.

    Args:
        family: the family.
        request: a name of the request that it must have been for; None for any. Whoever asks again after an interruption undoes
            no other request so.
        named: requests that the family's scenario names, whose names are taken, too.

    Raises:
        InputError: there is none, it is sealed, or it was for another request.
    """
    line = family.ledger.last_undoable()
    asked = request_in(line)
    if request is not None and names_like(family, request, named).isdisjoint((asked.id, *(one.id for one in asked.merges))):
        raise InputError(
            f"{family.folder}: the newest unlearning in force (ledger line {line.number}) is for request {asked.id}, not for "
            f"{request!r}; the newest is rolled back first, and nothing was done"
        )
    return line


def rollback(
    family: Family, backend: Backend, *, lift_exclusion: bool, reason: str | None = None, request: str | None = None
) -> Line:
    """Back to the versions before the newest unlearning in force, by one more ledger line.

    Args:
        family: the family.
        backend: carries the commit to the homes.
        lift_exclusion: whether the forgotten data may be trained on again.
        reason: why; goes to the ledger.
        request: as for `undoable`.

    Returns:
        The ledger line.

    Raises:
        InputError: as `undoable`, or a version that would become current again is missing or
            damaged; nothing is changed.
        SiteError: a place failed.
    """
    with alone(family, backend):
        undone = undoable(family, request)
        before: Mapping[str, str] = family.ledger.heads(undone.number)
        heads = {model: before[model] for model in sorted(undone.body["heads"].keys() - family.lost)}
        checks = [Score(family.lineage[model].home, version, Question()) for model, version in heads.items()]
        ask(backend, checks, Scored)  # reading a version checks every hash of it
        of = undone.body["request"]
        body = {"undoes": undone.number, "heads": heads, "request": of, "lifted": lift_exclusion, "reason": reason}
        line = family.ledger.append("rolled back", body)
        settle(family, backend)
    return line
