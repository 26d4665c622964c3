"""How the server of a federation steps from its clients' average: pure functions of named tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from fedunlearn.errors import TrainingError, unknown
from fedunlearn.tensors import Tensors, finite, same

Step = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]


class Strategy(ABC):
    """What a server does with its clients' average.

    Parameters are stepped. Buffers are not: BatchNorm's running means and variances and its counter of batches keep what the
    average says (a step of an optimiser could make a variance negative).
    """

    @abstractmethod
    def step(self, current: Tensors, average: Tensors, state: Tensors, parameters: Collection[str]) -> Step:
        """The next global model.

        Args:
            current: the global model that the round started from.
            average: of the clients' models, weighted by their rows; whole-number buffers are the first client's.
            state: what the step before gave; empty at the start.
            parameters: names of what is stepped; the rest are buffers.

        Returns:
            The weights, in the dtypes of the average, and the state for the next step: a flat mapping of tensors.
        """


@dataclass(frozen=True)
class FedAvg(Strategy):
    """The average itself (McMahan et al. 2017, arXiv 1602.05629, algorithm 1). It has no state."""

    def step(self, current: Tensors, average: Tensors, state: Tensors, parameters: Collection[str]) -> Step:
        """The average."""
        return dict(average), {}


@dataclass(frozen=True)
class FedAdam(Strategy):
    """Adam on the server (Reddi et al. 2021, arXiv 2003.00295, algorithm 2), with Flower's defaults and its bias correction.

    With x the model, d = average - x, in round t = 1, 2, ...:

        m = beta_1 m + (1 - beta_1) d
        v = beta_2 v + (1 - beta_2) d^2
        x = x + eta sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)) m / (sqrt(v) + tau)

    The paper has no bias correction; Flower adds Adam's, with t + 1 for t. Computed in float64; m, v and x are rounded to the
    parameter's dtype after every round. State: `m.<name>`, `v.<name>`, and `round`, the number of rounds so far.

    Args:
        eta: the server's learning rate.
        beta_1: decay of m.
        beta_2: decay of v.
        tau: adaptivity; the smaller, the more alike are the steps of all parameters.
    """

    eta: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def step(self, current: Tensors, average: Tensors, state: Tensors, parameters: Collection[str]) -> Step:
        """One step.

        Raises:
            ShapeError: the state belongs to a model of other names or shapes.
        """
        stepped = {n: t for n, t in average.items() if n in parameters and t.is_floating_point()}
        if state:
            for moment in ("m", "v"):
                held = {n[2:]: t for n, t in state.items() if n.startswith(f"{moment}.")}
                same(held, stepped, f"state of the server's optimiser ({moment}) and model")
        number = rounds_of(state) + 1
        rate = self.eta * (1 - self.beta_2 ** (number + 1)) ** 0.5 / (1 - self.beta_1 ** (number + 1))
        new, after = dict(average), {"round": torch.tensor(number)}
        for name, mean in stepped.items():
            x = current[name].double()
            d = mean.double() - x
            m, v = (state[f"{k}.{name}"].double() if state else torch.zeros_like(x) for k in ("m", "v"))
            m = self.beta_1 * m + (1 - self.beta_1) * d
            v = self.beta_2 * v + (1 - self.beta_2) * d.square()
            new[name] = (x + rate * m / (v.sqrt() + self.tau)).to(mean.dtype)
            after[f"m.{name}"], after[f"v.{name}"] = m.to(mean.dtype), v.to(mean.dtype)
        return new, after


STRATEGIES: dict[str, Callable[[], Strategy]] = {"fedavg": FedAvg, "fedadam": FedAdam}


def strategy_of(name: str) -> Strategy:
    """A strategy by its name, with its defaults.

    Raises:
        InputError: there is none of that name; says the nearest.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    return STRATEGIES[name]()


def rounds_of(state: Tensors) -> int:
    """How many rounds a state has seen."""
    return int(state["round"]) if "round" in state else 0


def usable(weights: Tensors | None, model: str, number: int, strategy: str) -> Tensors:
    """The weights that a strategy gave for a round.

    Raises:
        TrainingError: it gave none, or some that are NaN or infinite.
    """
    where = f"model {model!r}: round {number}: strategy {strategy!r} gave"
    if not weights:
        raise TrainingError(f"{where} nothing, expected the weights of the next round; nothing of this training was kept")
    for name, tensor in weights.items():
        if not finite(tensor):
            raise TrainingError(
                f"{where} NaN or infinity in {name!r}; nothing of this training was kept: lower lr, then train again"
            )
    return weights
