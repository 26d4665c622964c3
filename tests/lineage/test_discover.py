"""Discovery is reachability, and what each heir should look like follows from what is left among its ancestors."""

import subprocess
import sys

import networkx as nx
import pytest
from hypothesis import given, strategies as st

from fedunlearn.errors import InputError
from fedunlearn.lineage import Lineage, Model, Request, Shard, discover
from fedunlearn.lineage.subset import Subset
from tests.lineage.families import CLASSES, SITES, lineages


@st.composite
def requests(draw: st.DrawFn) -> Request:
    classes = tuple(draw(st.lists(st.sampled_from(CLASSES), unique=True)))
    sites = tuple(draw(st.lists(st.sampled_from(SITES), unique=True, min_size=0 if classes else 1)))
    return Request(classes=classes, sites=sites)


def asked(lineage: Lineage, request: Request) -> Request | None:
    """The request, if the lineage knows its names."""
    known = set(request.classes) <= set(lineage.classes) and set(request.sites) <= set(lineage.sites)
    return request if known else None


def touched(lineage: Lineage, root: str, request: Request) -> set[str]:
    """Shards of a root that hold what is asked."""
    return {s.key for s in lineage[root].data if request.touches(s)}


def brought_by(lineage: Lineage, root: str, request: Request) -> set[str]:
    """Classes that entered by a root."""
    return {c for s in lineage[root].data for c in request.touches(s)}


@given(lineages(), requests())
def test_affected_are_the_roots_and_their_networkx_descendants(lineage: Lineage, request: Request) -> None:
    if asked(lineage, request) is None:
        return
    plan = discover(lineage, request)
    roots = [
        m.name
        for m in lineage.models
        for s in m.data
        if (not request.sites or s.site in request.sites)
        and any(n and (not request.classes or c in request.classes) for c, n in s.rows.items())
    ]
    assert plan.roots == tuple(dict.fromkeys(roots))
    below = set(roots).union(*(nx.descendants(lineage.graph, r) for r in roots)) if roots else set()
    assert len(plan.affected) == len(set(plan.affected))
    assert set(plan.affected) == below
    assert [h.name for h in plan.heirs] == [n for n in plan.affected if lineage[n].kept]


@given(lineages(), requests())
def test_affected_come_breadth_first(lineage: Lineage, request: Request) -> None:
    if asked(lineage, request) is None:
        return
    plan = discover(lineage, request)
    lengths = [min(nx.shortest_path_length(lineage.graph, r, n) for r in plan.roots if nx.has_path(lineage.graph, r, n))
               for n in plan.affected]  # fmt: skip
    assert lengths == sorted(lengths)


@given(lineages(), requests())
def test_sources_are_reachability(lineage: Lineage, request: Request) -> None:
    if asked(lineage, request) is None:
        return
    plan = discover(lineage, request)
    for name in plan.affected:
        assert plan.sources[name] == tuple(r for r in plan.roots if nx.has_path(lineage.graph, r, name))
    for heir in plan.heirs:
        assert heir.sources == plan.sources[heir.name]
        brought = {c for root in heir.sources for c in brought_by(lineage, root, request)}
        assert heir.classes == tuple(c for c in request.classes if c in brought)


@given(lineages(), requests())
def test_every_root_of_an_heir_has_a_kept_stand_in_that_can_name_the_class_or_is_reported(
    lineage: Lineage, request: Request
) -> None:
    if asked(lineage, request) is None:
        return
    plan = discover(lineage, request)
    for heir in plan.heirs:
        measured = {p.shard for p in heir.points}
        for root in heir.sources:
            shards = touched(lineage, root, request)
            assert root in heir.unmeasured or shards <= measured
        for point in heir.points:
            model = lineage[point.model]
            assert model.kept
            assert set(model.head) & set(request.classes or CLASSES)
            ancestor = point.model == heir.name or nx.has_path(lineage.graph, point.model, heir.name)
            assert ancestor != (point.model in heir.borrowed)
        for root in heir.unmeasured:
            brought = brought_by(lineage, root, request)
            below = {root} | nx.descendants(lineage.graph, root)
            assert not any(lineage[m].kept and brought & set(lineage[m].head) for m in below)


@given(lineages(), requests())
def test_evidence_of_a_root_without_weights_is_the_earliest_on_the_way_or_else_the_nearest(
    lineage: Lineage, request: Request
) -> None:
    """Against a search for every heir and root by itself."""
    if asked(lineage, request) is None:
        return
    plan = discover(lineage, request)
    for heir in plan.heirs:
        expected = set()
        for root in heir.sources:
            shards = touched(lineage, root, request)
            brought = brought_by(lineage, root, request)
            able = [n for n, m in lineage.by_name.items() if m.kept and brought & set(m.head)]
            between = [m for m in able if nx.has_path(lineage.graph, root, m) and nx.has_path(lineage.graph, m, heir.name)]
            near = [m for layer in nx.bfs_layers(lineage.graph, root) for m in layer if m in able]
            at = root if root in able else next(iter(between + near), None)
            expected |= {(at, shard) for shard in shards if at}
        assert {(p.model, p.shard) for p in heir.points} == expected


@given(st.lists(st.tuples(st.text(), st.booleans())))
def test_a_subset_is_the_tuple_of_its_members(drawn: list[tuple[str, bool]]) -> None:
    found = Subset([name for name, _ in drawn], sum(chosen << i for i, (_, chosen) in enumerate(drawn)))
    same = tuple(name for name, chosen in drawn if chosen)
    assert (tuple(found), len(found), repr(found), hash(found)) == (same, len(same), repr(same), hash(same))
    assert found == same == found
    assert found != (*same, "more")
    assert (found[:1], found[-1:]) == (same[:1], same[-1:])


@given(lineages(), st.sampled_from(CLASSES))
def test_a_class_asked_for_everywhere_is_absent_wherever_it_could_be_named(lineage: Lineage, name: str) -> None:
    if name not in lineage.classes:
        return
    for heir in discover(lineage, Request(classes=(name,))).heirs:
        assert heir.target == ("absent" if name in heir_head(lineage, heir.name) else "not_expressible")


def heir_head(lineage: Lineage, name: str) -> tuple[str, ...]:
    return lineage[name].head


def shard(site: str, **rows: int) -> Shard:
    return Shard(site, "main", rows)


def two_hospitals() -> Lineage:
    """north and south hold "a"; the global model averages retired clients; east only inherits."""
    head = ("a", "b")
    return Lineage(
        (
            Model("g/r1/north", "north", "federated", head, (), (shard("north", a=3, b=4),), kept=False),
            Model("g/r1/south", "south", "federated", head, (), (shard("south", a=2, b=4),), kept=False),
            Model("g", "server", "federated", head, ("g/r1/north", "g/r1/south"), size=10),
            Model("e", "east", "incremental", head, ("g",), (shard("east", b=5),)),
            Model("t", "east", "transfer", ("b",), ("e",), (shard("east", b=5),)),
        ),
        {"server": head},
    )


def test_heirs_with_the_same_ancestors_share_what_is_planned_for_them() -> None:
    """A million heirs must not each hold a list of their own."""
    roots = [
        Model(f"root-{i}", "north", "federated", ("a",), (), (Shard("north", "main", {"a": 1}),), i % 2 == 0) for i in range(4)
    ]
    first = Model("first", "north", "federated", ("a",), tuple(r.name for r in roots))
    heirs = [Model(f"heir-{i}", "east", "incremental", ("a",), ("first",)) for i in range(50)]
    plan = discover(Lineage((*roots, first, *heirs)), Request(classes=("a",)))
    assert {p.model for p in plan.points} == {"root-0", "root-2", "first"}
    assert len({id(h.points) for h in plan.heirs if h.name.startswith("heir")}) == 1
    assert len({id(h.sources) for h in plan.heirs if h.name.startswith("heir")}) == 1


def test_one_of_two_sources_leaves_the_target_to_a_retrained_model() -> None:
    plan = discover(two_hospitals(), Request(classes=("a",), sites=("north",)))
    assert {h.name: h.target for h in plan.heirs} == {"g": "as_retrained", "e": "as_retrained", "t": "not_expressible"}


def test_both_sources_leave_nothing() -> None:
    plan = discover(two_hospitals(), Request(classes=("a",), sites=("north", "south")))
    assert {h.name: h.target for h in plan.heirs} == {"g": "absent", "e": "absent", "t": "not_expressible"}


def test_samples_and_whole_sites_are_judged_by_a_retrained_model() -> None:
    for request in (Request(samples=("north/main/7",)), Request(sites=("north", "south"))):
        assert {h.target for h in discover(two_hospitals(), request).heirs} == {"as_retrained"}


def test_retired_roots_are_measured_on_the_kept_model_downstream_of_them() -> None:
    plan = discover(two_hospitals(), Request(classes=("a",)))
    assert plan.roots == ("g/r1/north", "g/r1/south")
    assert [(p.model, p.shard, p.classes) for p in plan.points] == [("g", "north/main", ("a",)), ("g", "south/main", ("a",))]
    assert plan.rows == 5
    assert plan.sent == 2 * 10 * 8


def test_an_average_is_weighed_by_the_clients_it_averaged_and_knows_whether_one_holds_the_class() -> None:
    heirs = {h.name: h for h in discover(two_hospitals(), Request(classes=("a",))).heirs}
    assert [s.key for s in heirs["g"].own] == ["north/main", "south/main"]
    assert heirs["g"].holds_class
    assert not heirs["e"].holds_class


def test_where_no_test_row_is_the_plan_says_so() -> None:
    assert discover(two_hospitals(), Request(classes=("a",))).untested == ("e",)


def test_nearest_kept_descendant_stands_in_when_no_ancestor_of_the_heir_can_name_the_class() -> None:
    lineage = Lineage(
        (
            Model("root", "north", "incremental", ("a", "b"), (), (shard("north", a=2),), kept=False),
            Model("other", "south", "incremental", ("a", "b"), ("root",)),
            Model("head", "east", "transfer", ("b",), ("root",)),
        )
    )
    heir = next(h for h in discover(lineage, Request(classes=("a",))).heirs if h.name == "head")
    assert [p.model for p in heir.points] == ["other"]
    assert heir.borrowed == ("other",)


def test_a_root_that_nobody_can_stand_in_for_is_reported() -> None:
    lineage = Lineage(
        (
            Model("root", "north", "incremental", ("a", "b"), (), (shard("north", a=2),), kept=False),
            Model("head", "east", "transfer", ("b",), ("root",)),
        )
    )
    (heir,) = discover(lineage, Request(classes=("a",))).heirs
    assert heir.unmeasured == ("root",)


def test_what_entered_up_to_since_is_not_part_of_the_request() -> None:
    lineage = Lineage(
        (
            Model("one", "north", "incremental", ("a",), (), (shard("north", a=2),)),
            Model("two", "north", "incremental", ("a",), ("one",), (shard("north", a=2),)),
        )
    )
    plan = discover(lineage, Request(classes=("a",), since="one"))
    assert plan.roots == ("two",)
    assert plan.heirs[0].target == "as_retrained"


def test_a_known_class_that_nobody_holds_is_an_answer() -> None:
    lineage = Lineage((Model("one", "north", "incremental", ("a", "z"), (), (shard("north", a=2),)),))
    assert discover(lineage, Request(classes=("z",))).heirs == ()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(classes=("aa",)), "unknown class 'aa'; did you mean 'a'"),
        (Request(classes=("a",), sites=("nort",)), "unknown site 'nort'; did you mean 'north'"),
        (Request(samples=("north/mains/1",)), "unknown shard 'north/mains'; did you mean 'north/main'"),
        (Request(samples=("weast/main/1",)), "unknown site 'weast'; did you mean 'east'"),
        (Request(classes=("a",), since="g/r1/north"), "since 'g/r1/north' is a model on the way to another; name a kept model"),
        (Request(classes=("a",), since="gg"), "unknown model 'gg'; did you mean 'g'"),
    ],
)
def test_unknown_names_come_with_the_nearest_right_one(request_: Request, message: str) -> None:
    with pytest.raises(InputError, match=message):
        discover(two_hospitals(), request_)


def test_reasoning_over_names_never_loads_torch() -> None:
    code = "import sys, fedunlearn.lineage as l; l.discover; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
