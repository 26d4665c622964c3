"""Strategies step as their papers say; what stays is what was asked for; a round never goes on without a client."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fedunlearn.errors import ExcludedError, InputError, ShapeError, TrainingError
from fedunlearn.nets import weights_of
from fedunlearn.tensors import Tensors, average, equal
from fedunlearn.training import STRATEGIES, Born, Portion, Recipe, federated, kept_rounds, seed_of
from fedunlearn.training.federated import train_here
from fedunlearn.training.strategies import FedAdam, FedAvg
from tests.training.test_births import START, make, portion, recipe

TWO = {"n": [portion("n", 9, 0)], "s": [portion("s", 6, 1)]}


def names(born: Sequence[Born]) -> list[str]:
    return [b.model.name for b in born if b.model.kept]


def test_fedavg_is_the_average() -> None:
    mean = {"a": torch.tensor([1.0]), "n": torch.tensor(3)}
    new, state = FedAvg().step({"a": torch.tensor([0.0]), "n": torch.tensor(1)}, mean, {}, ["a"])
    assert equal(new, mean)
    assert not state


def test_fedadam_steps_as_written_out_by_hand() -> None:
    """Two rounds of scalars, with the moments and the bias correction of the docstring."""
    eta, b1, b2, tau = 0.1, 0.9, 0.99, 1e-3
    x, m, v, state = 1.0, 0.0, 0.0, {}
    current: Tensors = {"w": torch.tensor(x, dtype=torch.float64)}
    for number, target in ((1, 1.5), (2, 0.2)):
        current, state = FedAdam().step(current, {"w": torch.tensor(target, dtype=torch.float64)}, state, ["w"])
        d = target - x
        m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
        x += eta * math.sqrt(1 - b2 ** (number + 1)) / (1 - b1 ** (number + 1)) * m / (math.sqrt(v) + tau)
        assert float(current["w"]) == pytest.approx(x, rel=1e-12)
        assert int(state["round"]) == number


def test_buffers_are_averaged_never_stepped() -> None:
    names_ = ("weight", "running_var", "num_batches_tracked")
    current = {n: torch.tensor(t) for n, t in zip(names_, (1.0, 0.01, 5), strict=True)}
    mean = {n: torch.tensor(t) for n, t in zip(names_, (0.9, 0.009, 7), strict=True)}
    new, state = FedAdam().step(current, mean, {}, ["weight"])
    assert new["running_var"] == mean["running_var"]
    assert new["num_batches_tracked"] == 7
    assert new["weight"] != mean["weight"]
    assert {n: t.dtype for n, t in new.items()} == {n: t.dtype for n, t in mean.items()}
    assert set(state) == {"round", "m.weight", "v.weight"}


def test_a_state_of_another_model_is_an_error() -> None:
    state = {"round": torch.tensor(1), "m.other": torch.zeros(1), "v.other": torch.zeros(1)}
    with pytest.raises(
        ShapeError, match=r"state of the server's optimiser \(m\) and model: names differ: only in the first other"
    ):
        FedAdam().step({"w": torch.zeros(1)}, {"w": torch.ones(1)}, state, ["w"])


def test_fedadam_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    whole = list(federated(recipe(), make, START, TWO, 3, "fedadam"))[-1]

    def from_round_2(mine: Recipe, *args: Any) -> Tensors:
        number = int(mine.name.split("/")[1].removeprefix("r")) + 1
        return train_here(replace(mine, seed=seed_of(recipe().seed, str(number), mine.home)), *args)

    first = list(federated(recipe(), make, START, TWO, 1, "fedadam"))[-1]
    assert int(first.state["round"]) == 1
    second = list(federated(recipe(), make, first.weights, TWO, 2, "fedadam", state=first.state, run=from_round_2))[-1]
    assert equal(second.weights, whole.weights)
    assert equal(second.state, whole.state)
    anew = list(federated(recipe(), make, first.weights, TWO, 2, "fedadam", run=from_round_2))[-1]
    assert not equal(anew.weights, whole.weights)


def test_what_is_kept() -> None:
    last, every, all_ = (list(federated(recipe(), make, START, TWO, 5, keep=k)) for k in ("last", {"every": 2}, "all"))
    assert names(last) == ["m"]
    assert names(every) == ["m/r2", "m/r4", "m"]
    assert names(all_) == [b.model.name for b in last]
    assert {b.model.home for b in all_ if b.model.name.endswith("/n")} == {"n"}
    assert equal(last[-1].weights, all_[-1].weights)
    assert not last[-1].state


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"every": 0}, r"keep every 0 rounds keeps no round"),
        ({"every": 4}, r"keep every 4 rounds keeps no round"),
        ({"every": True}, r"keep every True rounds keeps no round"),
        ("first", r"keep is 'first'"),
        ({"each": 2}, r"keep is \{'each': 2\}"),
    ],
)
def test_a_policy_that_keeps_nothing_is_an_error(keep: Any, said: str) -> None:
    with pytest.raises(InputError, match=rf"model 'm': {said}; expected 'last', 'all' or \{{'every': n\}} with n from 1 to 3"):
        list(federated(recipe(), make, START, TWO, 3, keep=keep))


def test_kept_rounds() -> None:
    assert kept_rounds("last", 3) == {3}
    assert kept_rounds({"every": 3}, 7) == {3, 6, 7}
    assert kept_rounds("all", 2) == {1, 2}


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(InputError, match=r"unknown strategy 'fedadm'; did you mean 'fedadam'\? known: fedadam, fedavg"):
        list(federated(recipe(), make, START, TWO, 1, "fedadm"))


def dying(mine: Recipe, *args: Any) -> Tensors:
    if mine.name == "m/r2/s":
        raise OSError("the disk is gone")
    return train_here(mine, *args)


def test_a_client_that_dies_ends_the_training() -> None:
    with pytest.raises(
        TrainingError, match=r"model 'm': round 2 of 3: client 's' died: OSError: the disk is gone .*; nothing of"
    ):
        list(federated(recipe(), make, START, TWO, 3, run=dying))
    with pytest.raises(TrainingError, match=r"client 'n' died: ShapeError: training 'm/r1/n' diverged"):
        list(federated(recipe(lr=1e300), make, START, TWO, 3))


@pytest.mark.parametrize("kind", [ExcludedError, InputError])
def test_what_a_user_must_mend_keeps_its_kind(kind: type[Exception]) -> None:
    def refuses(mine: Recipe, *_: Any) -> Tensors:
        raise kind("mend it")

    with pytest.raises(kind, match="mend it"):
        list(federated(recipe(), make, START, TWO, 1, run=refuses))


@dataclass(frozen=True)
class Gives(FedAvg):
    weights: float | None = None

    def step(self, current: Tensors, average: Tensors, *_: Any) -> Any:
        return {} if self.weights is None else {n: torch.full_like(t, self.weights) for n, t in average.items()}, {}


@pytest.mark.parametrize(
    ("given", "said"), [(None, "nothing, expected the weights"), (math.nan, "NaN or infinity in '.*weight'")]
)
def test_a_strategy_that_gives_nothing_ends_the_training(
    monkeypatch: pytest.MonkeyPatch, given: float | None, said: str
) -> None:
    monkeypatch.setitem(STRATEGIES, "odd", lambda: Gives(given))
    with pytest.raises(
        TrainingError, match=rf"model 'm': round 1: strategy 'odd' gave {said}.*nothing of this training was kept"
    ):
        list(federated(recipe(), make, START, TWO, 2, "odd"))


def test_the_average_of_clients_is_what_the_strategy_gets() -> None:
    local = [b.weights for b in federated(recipe(), make, START, TWO, 1, "fedadam")][:2]
    mean = average(local, [9, 6])
    stepped, _ = FedAdam().step(START, mean, {}, [n for n, _ in make().named_parameters()])
    assert equal(list(federated(recipe(), make, START, TWO, 1, "fedadam"))[-1].weights, stepped)
    assert weights_of(make()).keys() == stepped.keys()


def test_portions_are_told_apart_by_client() -> None:
    seen: dict[str, list[str]] = {}

    def noted(mine: Recipe, *args: Any) -> Tensors:
        held: Sequence[Portion] = args[2]
        seen[mine.home] = [p.site for p in held]
        return train_here(mine, *args)

    list(federated(recipe(), make, START, TWO, 1, run=noted))
    assert seen == {"n": ["n"], "s": ["s"]}
