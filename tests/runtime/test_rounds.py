"""Evidence of one heir: one model's pools, different models' merge by maximum, its own ancestors' only."""

import torch

from fedunlearn.evaluation import Scores
from fedunlearn.importance import Importance
from fedunlearn.lineage import Lineage, Model, Request, Shard, discover
from fedunlearn.methods import FIUn
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.merging import merge
from fedunlearn.runtime.rounds import Round1
from fedunlearn.runtime.tasks import Scored
from fedunlearn.tensors import Head

NONE = Scores(None, None, 0, 0)


def importance(count: int, *values: float) -> Importance:
    return Importance({"squares": {"h.weight": torch.tensor([values], dtype=torch.float64).T}}, count)


def test_pool_within_a_model_merge_between_models_and_only_over_ancestors() -> None:
    head = ("a", "b")

    def shard(site: str) -> Shard:
        return Shard(site, "main", {"a": 2})

    lineage = Lineage(
        (
            Model("c1", "n", "federated", head, (), (shard("n"),), kept=False),
            Model("c2", "s", "federated", head, (), (shard("s"),), kept=False),
            Model("one", "server", "federated", head, ("c1", "c2")),
            Model("two", "e", "incremental", head, (), (shard("e"),)),
            Model("joined", "w", "federated", head, ("one", "two")),
        )
    )
    plan = discover(lineage, Request(classes=("a",)))
    values = {"n/main": importance(2, 2.0, 8.0), "s/main": importance(2, 4.0, 0.0), "e/main": importance(4, 4.0, 12.0)}
    scored = {h.name: Scored("v", Head("h", head), {"h.weight": (2, 1)}, NONE, NONE, 1) for h in plan.heirs}
    found = Round1(scored, {p: values[p.shard] for p in plan.points}, {}, asked={h.name: h.points for h in plan.heirs})
    family = Family.__new__(Family)
    family.__dict__["lineage"] = lineage
    heirs = {h.name: merge(family, h, plan, FIUn(), found).merged["h.weight"].flatten().tolist() for h in plan.heirs}
    assert heirs["one"] == [1.5, 2.0]  # (2 + 4) / 4, (8 + 0) / 4: pooled over the clients of one model
    assert heirs["two"] == [1.0, 3.0]
    assert heirs["joined"] == [1.5, 3.0]  # maximum over the two models


def test_where_sites_vote_they_do_before_their_sums_are_pooled_and_a_site_with_two_models_has_one_vote() -> None:
    head = ("a", "b")
    shards = {s: Shard(s, "main", {"a": 2}) for s in "xyz"}
    clients = tuple(Model(f"c{s}", s, "federated", head, (), (shards[s],), kept=False) for s in "xyz")
    lineage = Lineage(
        (
            *clients,
            Model("one", "server", "federated", head, tuple(c.name for c in clients)),
            Model("two", "z", "incremental", head, ("one",), (shards["z"],)),
        )
    )
    plan = discover(lineage, Request(classes=("a",)))
    sums = {"x": (2.0, 8.0), "y": (4.0, 6.0), "z": (2000.0, 0.0)}
    scored = {h.name: Scored("v", Head("h", head), {"h.weight": (2, 1)}, NONE, NONE, 1) for h in plan.heirs}
    points = {p: importance(2, *sums[p.site]) for p in plan.points}
    found = Round1(scored, points, {}, asked={h.name: h.points for h in plan.heirs})
    family = Family.__new__(Family)
    family.__dict__["lineage"] = lineage
    heirs = {h.name: h for h in plan.heirs}

    def of(heir: str, merging: str) -> list[float]:
        return merge(family, heirs[heir], plan, FIUn(merging=merging), found).merged["h.weight"].flatten().tolist()

    assert {(p.model, p.site) for p in heirs["two"].points} >= {("one", "z"), ("two", "z")}
    for heir in ("one", "two"):
        assert of(heir, "max")[0] > 300  # pooled with the others, the lie is in it
        assert of(heir, "median") == [2.0, 3.0]
