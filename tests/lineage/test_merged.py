"""Several requests in one: exactly what they ask together, or an error; and every one keeps its own roots and heirs."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, combinations

import pytest
from hypothesis import given, strategies as st

from fedunlearn.errors import InputError
from fedunlearn.lineage import Lineage, Request, Shard, discover
from tests.lineage.families import CLASSES, SITES, lineages
from tests.lineage.test_discover import asked, two_hospitals

SHARDS = [Shard(site, "main", dict.fromkeys((*CLASSES, "never asked"), 1)) for site in (*SITES, "never asked")]


def parts(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, n) for n in range(len(names) + 1)))


EVERY = [Request(c, sites=s) for c in parts(CLASSES) for s in parts(SITES) if c or s]
SAMPLES = [Request(samples=s) for s in parts(("north/main/1", "north/main/2", "east/main/1")) if s]


def touched(*requests: Request) -> set[tuple[str, str]]:
    """Classes of shards, and samples, that requests ask for."""
    cells = {(shard.key, c) for r in requests if not r.samples for shard in SHARDS for c in r.touches(shard)}
    return cells | {("", sample) for r in requests for sample in r.samples}


def several(of: list[Request], most: int = 3) -> st.SearchStrategy[tuple[Request, ...]]:
    return st.lists(st.sampled_from(of), min_size=1, max_size=most, unique=True).map(tuple)


@given(several(EVERY + SAMPLES))
def test_what_is_merged_asks_for_what_all_ask_together_and_is_refused_only_where_no_request_does(
    requests: tuple[Request, ...],
) -> None:
    kinds = {(bool(r.classes), bool(r.samples)) for r in requests}
    try:
        merged = Request(merges=requests)
    except InputError:
        alike = [r for r in EVERY + SAMPLES if {(bool(r.classes), bool(r.samples))} == kinds]
        assert not any(touched(r) == touched(*requests) for r in alike)
        return
    assert touched(merged) == touched(*requests)
    assert {(bool(merged.classes), bool(merged.samples))} == kinds
    assert Request(merges=tuple(reversed(requests))).what == merged.what
    assert Request.from_json(merged.to_json()) == merged
    assert Request(merges=(merged,)) == merged


@given(lineages(), several(EVERY))
def test_a_merged_plan_is_that_of_one_request_and_each_case_keeps_its_own_roots_and_heirs(
    lineage: Lineage, requests: tuple[Request, ...]
) -> None:
    if any(asked(lineage, r) is None for r in requests):
        return
    try:
        merged = Request(merges=requests)
    except InputError:
        return
    one, alone = Request(merged.classes, sites=merged.sites), {r.id: discover(lineage, r) for r in requests}
    plan = discover(lineage, merged)
    assert replace(plan, request=one, cases={}) == discover(lineage, one)
    assert plan.cases == {name: its.roots for name, its in alone.items()}
    assert set(plan.roots) == {root for its in alone.values() for root in its.roots}
    for name, its in alone.items():
        assert set(plan.of_case(name)) == {h.name for h in its.heirs}
    for heir in plan.heirs:  # evidence is merged over the roots of all of them, as far as they are its ancestors
        assert set(heir.sources) == {root for its in alone.values() for root in its.sources.get(heir.name, ())}


def test_dates_and_names_of_a_pass_follow_from_its_cases() -> None:
    first = Request(("a",), id="first", received="2026-11-03", due="2026-12-03")
    second = Request(("b",), id="second", received="20261102", due="2026-12-24")
    merged = Request(merges=(first, second, Request(("c",), id="third")))
    assert (merged.id, merged.received, merged.due) == ("first+second+third", "2026-11-02", "2026-12-03")
    assert merged.merges[:2] == (first, second)
    plan = discover(two_hospitals(), Request(merges=(first, second))).to_json()
    assert {c: set(its["heirs"]) for c, its in plan["cases"].items()} == {c: {"g", "e", "t"} for c in ("first", "second")}
    assert discover(two_hospitals(), first).to_json()["cases"] == {}


A, B = Request(("a",), id="a"), Request(("b",), id="b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Request(merges=(A, A)), r"requests a, a: a \(class a\) and a \(class a\) have one name or ask for the same"),
        (lambda: Request(merges=(A, Request(("a",), id="x"))), r"a \(class a\) and x \(class a\) have one name or ask for"),
        (lambda: Request(merges=(A, Request(("c",), id="a"))), "leave one out"),
        (lambda: Request(merges=(A, Request(merges=(A, B)))), r"requests a, a, b: a \(class a\) and a"),
        (
            lambda: Request(merges=(A, Request(samples=("n/m/1",), id="s"), B, Request(sites=("n",), id="n"))),
            "classes, samples or whole sites, .* run one pass each for: a, b; s; n$",
        ),
        (lambda: Request(merges=(A, Request(("b",), since="m", id="m"))), "one `since`, .* run one pass each for: a; m$"),
        (
            lambda: Request(merges=(A, Request(("c",), sites=("n",), id="n"), B)),
            "each of its classes at each of its sites; run one pass each for: a, b; n$",
        ),
        (lambda: Request(("a",), id="x", merges=(A, B)), r"request x: asks for something else than what it merges \(a, b\)"),
    ],
)  # fmt: skip
def test_what_is_no_one_request_is_refused_with_what_goes_together(make: Callable[[], Request], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
