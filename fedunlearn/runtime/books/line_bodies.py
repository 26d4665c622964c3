"""What ledger lines tell, as far as it is read again; whoever wrote the ledger, and hashed it."""

from collections.abc import Mapping
from typing import Any, NotRequired

from typing_extensions import TypedDict

from fedunlearn.data.exclusions import Selected
from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Request
from fedunlearn.plain import Hash, Place, shaped
from fedunlearn.store import Ledger, Line
from fedunlearn.store.line import check

Share = float | None


class KeptRow(TypedDict):
    """What a line keeps of an heir's row; the rest is in a file (see `records`)."""

    name: str
    version_retrained: NotRequired[str | None]


class _Row(TypedDict):
    name: str
    home: str
    born: str
    target: str
    status: str
    forgotten_before: Share
    forgotten_after: Share
    retained_before: Share
    retained_after: Share
    mask_retained: Share
    retrained_forgotten: Share
    retrained_retained: Share
    forgotten_on: str
    forgotten_by_class: dict[str, Share]
    rows_forgotten: int
    rows_retained: int
    scored_at: NotRequired[dict[str, Any] | None]
    holds_class: bool
    sources: list[str]
    points: list[str]
    version_before: str | None
    version_after: str | None
    version_retrained: NotRequired[str | None]
    strength: dict[str, float] | None
    rule: str | None
    passes: int
    untested: NotRequired[list[str]]
    unresolved: NotRequired[list[str]]
    not_shared: list[str]
    unmeasured: list[str]
    evaluation: NotRequired[dict[str, dict[str, Any]]]


class _Case(TypedDict):
    roots: list[str]
    heirs: list[str]


class KeptHeir(TypedDict):
    """What it keeps of the plan's word about an heir."""

    name: str
    target: str
    absent: NotRequired[list[str]]


class KeptPlan(TypedDict):
    """What it keeps of the plan."""

    roots: list[str]
    affected: list[str]
    cases: NotRequired[dict[str, _Case]]
    heirs: NotRequired[list[KeptHeir]]  # some older lines have none


class _Whole(TypedDict):
    models: list[_Row]
    plan: KeptPlan


class _Objection(TypedDict):
    model: str
    text: str


class _Request(TypedDict):
    id: str
    classes: list[str]
    samples: list[str]
    sites: list[str]
    since: str | None
    received: str | None
    due: str | None
    merges: NotRequired[list["_Request"]]


class _Facts(TypedDict):
    request: _Request
    plan: KeptPlan
    method: str
    settings: dict[str, Any]
    precision: str
    gate: dict[str, Any]
    models: list[KeptRow]
    objections: list[_Objection]
    accepted_untested: str | None
    absent: list[str]
    guarded: NotRequired[dict[str, dict[str, float | None]]]
    codes: NotRequired[dict[str, dict[str, str]]]
    spent: NotRequired[list[str]]
    noted: NotRequired[dict[str, str]]
    unregistered: NotRequired[list[str]]
    within: NotRequired[list[int]]
    reference: NotRequired[str]


class _Traffic(TypedDict):
    up: int
    down: int


class _Cost(TypedDict):
    seconds: float
    measure_seconds: float
    rows_read: int
    rows_calibrated: NotRequired[int]
    bytes_up: int
    traffic: NotRequired[dict[str, _Traffic]]


class _Record(TypedDict):
    facts: _Facts
    cost: _Cost
    heirs: NotRequired[Hash]  # of the file; older lines have all of it in `facts`


class _Born(TypedDict):
    carried: NotRequired[dict[str, list[str]]]
    withheld: NotRequired[dict[str, int]]
    lacks: NotRequired[dict[str, int]]


class _Unlearned(TypedDict):
    heads: dict[str, str]
    pending: dict[str, str]
    untouched: list[str]
    waiting: NotRequired[list[str]]
    method: NotRequired[str]
    reason: str | None
    exclusions: dict[str, Selected]
    record: _Record


class _Undone(TypedDict):
    lifted: bool


class _Evaluated(TypedDict):
    evaluates: int
    request: str
    results: dict[str, dict[str, Hash]]
    lacking: NotRequired[list[str]]


class _Sealed(TypedDict):
    requests: list[str]
    left: list[str]
    erases: list[str]


class _Departed(TypedDict):
    place: Place
    lost: dict[str, str]


_SHAPES: dict[str, Any] = {
    "trained": _Born,
    "unlearned": _Unlearned,
    "rolled back": _Undone,
    "evaluated": _Evaluated,
    "sealed": _Sealed,
    "departed": _Departed,
}


def checked(ledger: Ledger) -> Ledger:
    """A ledger of which every line tells what its kind tells, as will those that are added.

    Raises:
        StoreError: one does not; says which, and what is wrong.
    """
    heads: dict[str, str] = {}
    for line in ledger.lines:
        try:
            _check(line, heads, ledger)
        except (ValueError, InputError) as error:
            raise StoreError(
                f"{ledger.path}, line {line.number + 1}: says what no {line.kind!r} line says ({error}); restore the file from "
                f"a backup"
            ) from error
        heads.update(line.body.get("heads", {}))

    def next_one(line: Line) -> None:
        check(line)
        _check(line, ledger.heads(), ledger)

    ledger.reader = next_one
    return ledger


def _check(line: Line, heads: dict[str, str], ledger: Ledger) -> None:
    """Its shape, and that models change which had a version before, and lines are undone that changed some."""
    shaped(line.body, _SHAPES.get(line.kind, dict[str, Any]))
    body = line.body
    if line.kind != "trained" and (strange := sorted(body.get("heads", {}).keys() - heads.keys())):
        raise ValueError(f"{strange[0][:80]!r} had no version before")
    about = [ledger.lines[body[what]] for what in ("undoes", "evaluates", "resumes") if what in body]
    if any(one.kind != "unlearned" for one in about):
        raise ValueError(f"line {about[0].number + 1} is no unlearning")
    if line.kind == "evaluated":
        models = {row["name"] for row in about[0].body["record"]["facts"]["models"]}
        if strange := sorted(body["results"].keys() - models):
            raise ValueError(f"{strange[0][:80]!r} is not among the models of line {about[0].number + 1}")
    if line.kind == "unlearned":
        facts = body["record"]["facts"]
        merged = {one.id for one in Request.from_json(facts["request"]).merges}
        if strange := sorted(merged ^ facts["plan"].get("cases", {}).keys()):
            raise ValueError(f"{strange[0][:80]!r} is a case of its plan or of its request only")
        named = {row["name"] for row in facts["models"]}
        if "heirs" not in body["record"]:
            check_whole(facts, {"models": facts["models"], "plan": facts["plan"]})
        if strange := sorted({*body["heads"], *body["pending"], *body["untouched"], *body.get("waiting", ())} - named):
            raise ValueError(f"{strange[0][:80]!r} is not among the models of its record")


def check_whole(facts: Mapping[str, Any], whole: Any) -> None:
    """Refuse what was found of heirs, if it is not what an "unlearned" line's facts are about.

    Args:
        facts: of the line.
        whole: `models`, a row each, and `plan`, whoever wrote them.

    Raises:
        ValueError: says what is wrong.
    """
    found = shaped(whole, _Whole)
    if [row["name"] for row in found["models"]] != [row["name"] for row in facts["models"]]:
        raise ValueError("it is about other models")
    if strange := sorted({s for row in found["models"] for s in row["sources"]} - set(facts["plan"]["roots"])):
        raise ValueError(f"{strange[0][:80]!r} is no root of its plan")


def request_in(line: Line) -> Request:
    """What an "unlearned" line was asked."""
    return Request.from_json(line.body["record"]["facts"]["request"])
