"""Steer solves the problem that it says it solves."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional

from fedunlearn.importance import measure
from fedunlearn.methods import Case, Evidence, Steer, make
from fedunlearn.methods.calibration import FARTHEST, least
from fedunlearn.methods.drawn import HEAD, Draw
from fedunlearn.methods.multipliers import SOFT, multipliers
from fedunlearn.methods.steer import DEEP, LAST
from fedunlearn.tensors import Head

GRAMS = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.lists(st.floats(-2, 2), min_size=6, max_size=6), min_size=k, max_size=k), st.integers(0, 99)
    )
)


@given(GRAMS)
def test_multipliers_meet_every_constraint_and_are_idle_where_one_is_more_than_met(
    drawn: tuple[list[list[float]], int],
) -> None:
    """The conditions of Karush, Kuhn and Tucker, which only the minimum fulfils."""
    generator = torch.Generator().manual_seed(drawn[1])
    g = torch.tensor(drawn[0], dtype=torch.float64) + torch.randn(len(drawn[0]), 6, generator=generator).double()
    far = torch.rand(len(g), generator=generator).double() * 10
    gram = g @ g.T
    found = multipliers(gram, far)
    slack = gram @ found + SOFT * gram.diagonal() * found - far
    assert bool((found >= 0).all())
    assert float(slack.min()) >= -1e-6
    assert float((found * slack).abs().max()) <= 1e-6 * float(1 + found.max())


def test_a_constraint_that_nothing_can_meet_is_left_out_and_contradictions_give_a_compromise() -> None:
    def solved(gram: list[list[float]], far: list[float]) -> torch.Tensor:
        return multipliers(torch.tensor(gram, dtype=torch.float64), torch.tensor(far, dtype=torch.float64))

    assert solved([[0.0, 0.0], [0.0, 2.0]], [5.0, 3.0]).tolist() == pytest.approx([0.0, 1.5], rel=1e-3)
    one, other = solved([[1.0, -1.0], [-1.0, 1.0]], [10.0, 4.0]).tolist()
    assert one - other == pytest.approx(3.0, rel=1e-3)  # along the first way: half of what divides them
    assert solved([[0.0]], [1.0]).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(30))
def test_every_decrease_is_reached_to_first_order_with_the_least_damage(seed: int) -> None:
    draw = Draw(Steer(), seed)
    weights, case = draw.heir()
    weights = {n: t.double() for n, t in weights.items()}
    evidence = (*case.evidence, draw.evidence("c"))
    own = Evidence({"head.weight": case.own.means["head.weight"]}, case.own.rows)
    case = Case(evidence, own, HEAD, ("b", "c"))
    edited = Steer(drop=0).edit(weights, case, {"factor": 1.0})

    def flat(one: object) -> torch.Tensor:
        w, b = (one[n] for n in HEAD.names)  # type: ignore[index]
        return torch.cat([w, b[:, None]], 1)

    step = flat(edited) - flat(weights)
    g = [flat(e.means) for e in evidence]
    moment = own.means["head.weight"]
    damped = moment + LAST * (float(moment.diagonal().mean()) or 1.0) * torch.eye(3)
    lengths = [float(x.norm()) for x in g]
    if min(lengths) < 1e-3 or abs(float((g[0] * g[1]).sum())) > 0.9 * lengths[0] * lengths[1]:
        return  # nothing to follow, or two that say nearly the same, or the opposite
    for e, x in zip(evidence, g, strict=True):
        assert float((x * step).sum()) <= -float(e.enough or 0) * (1 - 1e-2)
    for other_way in range(20):  # no other change that reaches them does less damage
        other = step + 0.1 * step.norm() * torch.randn(3, 3, generator=torch.Generator().manual_seed(other_way)).double()
        reached = min(-float((x * other).sum()) / float(e.enough or 1) for e, x in zip(evidence, g, strict=True))
        if reached > 0:
            other = other / min(reached, 1.0)
            assert float((other @ damped * other).sum()) >= float((step @ damped * step).sum()) * (1 - 1e-2)


def test_with_one_class_it_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(s, generator=generator) for n, s in (("head.weight", (3, 2)), ("head.bias", (3,)))}
    means = {n: torch.randn(t.shape, generator=generator).double() for n, t in weights.items()}
    h = torch.cat([torch.randn(9, 2, generator=generator).double(), torch.ones(9, 1)], 1)
    own = Evidence({"head.weight": h.T @ h / 9}, 9)
    edited = Steer(drop=0).edit(weights, Case((Evidence(means, 5, "b", 2.0),), own, HEAD, ("b",)), {"factor": 1.3})
    g = torch.cat([means["head.weight"], means["head.bias"][:, None]], 1)
    a = h.T @ h / 9
    pg = g @ torch.linalg.inv(a + 0.01 * torch.trace(a) / 3 * torch.eye(3))
    delta = -2.6 * pg / (g * pg).sum()
    assert torch.allclose(edited["head.weight"].double() - weights["head.weight"].double(), delta[:, :2], rtol=1e-3, atol=1e-6)
    assert torch.allclose(edited["head.bias"].double() - weights["head.bias"].double(), delta[:, 2], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_a_weight_whose_bias_stays_goes_as_far_alone(seed: int) -> None:
    """With the least damage that a change of it alone can do."""
    draw = Draw(Steer(), seed)
    weights, case = draw.heir()
    weights = {n: t.double() for n, t in weights.items()}
    (one,) = case.evidence
    g = one.means["head.weight"]
    alone = replace(case, evidence=(replace(one, means={"head.weight": g}),))
    edited = Steer(drop=0, layers="head.weight").edit(weights, alone, {"factor": 1.0})
    assert all(torch.equal(edited[n], t) for n, t in weights.items() if n != "head.weight")
    moment = case.own.means["head.weight"]
    damped = (moment + DEEP * (float(moment.diagonal().mean()) or 1.0) * torch.eye(3))[:2, :2]
    way = g @ torch.linalg.inv(damped)
    if float((g * way).sum()) > 1e-6:
        delta = -float(one.enough or 0) * way / (g * way).sum()
        assert torch.allclose(edited["head.weight"] - weights["head.weight"], delta, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weigh", ["fisher", "none"])
def test_with_another_yardstick_it_is_the_closed_form_of_that(weigh: str) -> None:
    draw = Draw(make("steer", {"weigh": weigh, "layers": "all", "drop": 0}), 4)
    weights, case = draw.heir()
    edited = draw.method.edit(weights, case, {"factor": 1.3})
    (one,), fisher = case.evidence, case.own.means
    damage = {n: fisher[n] + 10 * fisher[n].mean() if weigh == "fisher" else torch.ones_like(g) for n, g in one.means.items()}
    reach = sum(float((g.square() / damage[n]).sum()) for n, g in one.means.items())
    for n, g in one.means.items():
        delta = -1.3 * float(one.enough or 0) * (g / damage[n]) / reach
        assert torch.allclose(edited[n].double() - weights[n].double(), delta, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weigh", ["moment", "fisher", "none"])
@pytest.mark.parametrize("seed", range(6))
def test_a_share_moves_the_weights_with_the_most_evidence_and_still_goes_as_far(weigh: str, seed: int) -> None:
    draw = Draw(make("steer", {"weigh": weigh, "share": 0.4, "drop": 0}), seed)
    weights, case = draw.heir()
    weights = {n: t.double() for n, t in weights.items()}
    (one,) = case.evidence
    own = {n: t for n, t in case.own.means.items() if n in HEAD.names}
    one = replace(one, means={n: one.means[n] for n in HEAD.names})
    case = replace(case, evidence=(one,), own=Evidence(own, 9))
    edited = draw.method.edit(weights, case, {"factor": 1.0})
    moved = torch.cat([(edited[n] - weights[n]).flatten() for n in HEAD.names])
    g = torch.cat([one.means[n].flatten() for n in HEAD.names])
    assert 0 < int((moved != 0).sum()) <= round(0.4 * len(g))
    assert float(g @ moved) == pytest.approx(-float(one.enough or 0), rel=1e-3)
    if weigh == "none":
        assert float(g[moved != 0].abs().min()) >= float(g[moved == 0].abs().max())


def test_an_heir_that_never_saw_the_class_forgets_it_and_the_number_carries_over() -> None:
    """Two heads over the same features, trained apart: what is enough at one is enough at the other."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(3, 8, generator=generator) * 2
    y = torch.arange(300) % 3
    x = centres[y] + torch.randn(300, 8, generator=generator)
    head = Head("head", ("a", "b", "c"))

    def trained(rows: torch.Tensor, epochs: int, start: torch.nn.Module | None = None) -> torch.nn.Sequential:
        net = torch.nn.Sequential()
        net.add_module("head", torch.nn.Linear(8, 3))
        if start is not None:
            net.load_state_dict(start.state_dict())
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(epochs):
            optimiser.zero_grad()
            functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
        return net.eval()

    root = trained(torch.arange(0, 150), 200)
    heir = trained((y != 1).nonzero().flatten(), 40, root)
    method, held = make("steer"), x[150:][y[150:] == 1]

    def case(net: torch.nn.Module, evidence: Evidence) -> Case:
        rest = y[:150] != 1
        own = measure(net, x[:150][rest], head=head, statistic="moment", layers="last")
        return Case((evidence,), Evidence(own.mean("moment"), own.count), head, ("b",))

    forgotten = y[:150] == 1
    g = measure(root, x[:150][forgotten], y[:150][forgotten], head=head, statistic="sum", loss="masked", masked=("b",))
    evidence = Evidence(g.mean("sum"), g.count, "b")
    weights = {n: t.detach() for n, t in root.state_dict().items()}

    def left(edited: object) -> float:
        w, b = (edited[n] for n in head.names)  # type: ignore[index]
        return float(((held @ w.T + b).argmax(1) == 1).float().mean())

    enough = method.enough(weights, case(root, evidence), left, None)
    assert enough is not None
    assert left(weights) > 0.9
    inherited = {n: t.detach() for n, t in heir.state_dict().items()}
    assert left(inherited) > 0.5
    told = Evidence(evidence.means, evidence.rows, "b", enough)
    edited = method.edit(inherited, case(heir, told), method.sent(case(heir, told)) or {})
    assert left(edited) <= 0.05
    rest = x[150:][y[150:] != 1]
    kept = (rest @ edited["head.weight"].T + edited["head.bias"]).argmax(1) == y[150:][y[150:] != 1]
    assert float(kept.float().mean()) >= 0.95


@given(st.floats(0, 5), st.floats(0.1, 3), st.integers(0, 50))
def test_a_forgotten_classs_own_output_is_lowered_besides_and_nothing_else(drop: float, factor: float, seed: int) -> None:
    draw = Draw(Steer(), seed)
    weights, case = draw.heir()
    weights = {n: t.double() for n, t in weights.items()}
    farther = replace(draw.evidence("b"), enough=9.0)  # of another root: the farther of two that agree on the class
    case = replace(case, evidence=(*case.evidence, farther))
    step, both = (Steer(drop=d).edit(weights, case, {"factor": factor}) for d in (0.0, drop))
    lowered = step["head.bias"] - both["head.bias"]
    reached = [e for e in case.evidence if any(bool(e.means[n].any()) for n in HEAD.names)]
    most = max((e.enough or 0.0 for e in reached), default=0.0)
    assert lowered.tolist() == pytest.approx([0.0, drop * factor * most, 0.0])
    assert all(torch.equal(step[n], both[n]) for n in step if n != "head.bias")
    body = make("steer", {"layers": "body", "drop": drop})
    there, below = Draw(body, seed).heir()
    assert torch.equal(body.edit(there, below, {"factor": factor})["head.bias"], there["head.bias"])
    rows = replace(case, classes=(), evidence=tuple(replace(e, about="") for e in case.evidence))
    of_rows = [Steer(drop=d).edit(weights, rows, {"factor": factor})["head.bias"] for d in (0.0, drop)]
    assert torch.equal(*of_rows)


def test_how_far_is_enough_is_a_matter_of_the_step_alone() -> None:
    draw = Draw(Steer(), 3)
    weights, case = draw.heir()
    asked = replace(case, evidence=(replace(case.evidence[0], enough=None),))

    def left(edited: Mapping[str, torch.Tensor]) -> float:
        return float(torch.dist(edited["head.weight"], weights["head.weight"]) < 1 and edited["head.bias"][1] > -1e3)

    found = {Steer(drop=d).enough(weights, asked, left, None) for d in (0.0, 2.0, 1e9)}
    assert len(found) == 1
    assert (found.pop() or 0.0) > 0


def test_what_is_enough_is_found_by_doubling_and_halving() -> None:
    tried: list[float] = []

    def left(number: float) -> float:
        tried.append(number)
        return 0.0 if number >= 37.0 else 1.0

    assert 37.0 <= least(left, 0.02) <= 37.0 * 1.035
    assert len(tried) <= 20
    assert least(lambda _: 0.0, 0.02) == 0.5
    assert least(lambda number: 1 / number, 0.0) == FARTHEST


def test_a_root_that_does_not_know_the_class_says_that_nothing_is_to_be_moved() -> None:
    means = {"head.weight": torch.full((3, 2), 1e-9).double(), "head.bias": torch.full((3,), 1e-9).double()}
    own = Evidence({"head.weight": torch.eye(3).double()}, 1)
    weights = {n: torch.zeros(t.shape) for n, t in means.items()}
    case = Case((Evidence(means, 1, "b"),), own, HEAD, ("b",))
    assert Steer().enough(weights, case, lambda _: 0.01, None) == 0.0
    assert (Steer().enough(weights, case, lambda _: 0.5, None) or 0) > 0


@pytest.mark.parametrize(("last", "at_most"), [(1.2, 1.3), (30.0, 2.1)])
def test_a_row_that_no_step_reaches_does_not_decide_how_far_all_heirs_go(last: float, at_most: float) -> None:
    """Nine of ten rows are forgotten after a step of 1, the tenth after `last`, in units of the weight that moves."""
    g = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).double()
    own = Evidence({"head.weight": torch.eye(2).double()}, 1)
    weights = {"head.weight": torch.zeros(3, 2), "head.bias": torch.zeros(3)}
    case = Case((Evidence({"head.weight": g}, 1, "b"),), own, HEAD, ("b",))

    def left(edited: Mapping[str, torch.Tensor]) -> float:
        moved = float((edited["head.weight"] - weights["head.weight"]).norm())
        return 1.0 if moved < 1 else 0.1 if moved < last else 0.0

    enough = Steer().enough(weights, case, left, None)
    assert enough is not None
    told = replace(case, evidence=(Evidence({"head.weight": g}, 1, "b", enough),))
    moved = Steer(drop=0).edit(weights, told, {"factor": 1.0})
    assert 0.95 * min(last, 2) <= float(moved["head.weight"].norm()) <= at_most
