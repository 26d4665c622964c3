"""What goes wrong in one rank is said with its name and ends all; what cannot work is refused before it starts."""

import os
import signal
import time
from datetime import timedelta
from typing import Any, NoReturn

import pytest
import torch

from fedunlearn.data import Exclusions, Rows, Selection
from fedunlearn.errors import ExcludedError, InputError, ShapeError, TrainingError
from fedunlearn.training import Portion
from tests.training.ranks import CLASSES, Plain, _no_process_is_left as _no_process_is_left, born_by, portion, ranks, train

# Nets that misbehave: at the top level, as the processes import them from here.


class Dies(Plain):
    def step(self) -> None:
        if torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Stops(Plain):
    def step(self) -> None:
        if torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)


class Raises(Plain):
    def step(self) -> None:
        if torch.distributed.get_rank() == 1:
            raise ValueError("no such thing")


class Drifts(Plain):
    """Changes its own parameters when training ends, at one rank."""

    def train(self, mode: bool = True) -> "Drifts":
        if self.training and not mode and torch.distributed.is_initialized() and torch.distributed.get_rank() == 2:
            self.body.weight.data += 1e-9
        super().train(mode)
        return self


class Differs(Plain):
    """Comes out of its pickle with weights of its process."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.body.bias.data += os.getpid()


class Unmakeable(Plain):
    def __setstate__(self, state: dict[str, Any]) -> NoReturn:
        raise RuntimeError("not here")


# What goes wrong


def test_a_killed_rank_is_named_and_ends_the_others() -> None:
    message = (
        r"training 'm': rank 'r1' died with exit code -9 \(SIGKILL\); the other ranks were ended and nothing was kept; see"
    )
    with pytest.raises(TrainingError, match=message):
        train(Dies, ranks(6, 6, 6))


def test_a_rank_that_falls_silent_ends_all_after_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(born_by, "PATIENCE", timedelta(seconds=3))
    monkeypatch.setattr(born_by, "GRACE", 0.5)
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"(no word from rank 'r1'|no sign of life from .*rank 'r1').* nothing was kept"):
        train(Stops)
    assert time.monotonic() - began < 20


def test_what_a_rank_raises_is_said_with_its_name() -> None:
    with pytest.raises(
        TrainingError, match=r"training 'm': rank 'r1' raised ValueError: no such thing.*nothing was kept; mend"
    ):
        train(Raises)


def test_divergence_keeps_its_kind() -> None:
    with pytest.raises(ShapeError, match=r"training 'm' diverged to NaN or infinity; lower lr \(it is 1e\+300"):
        train(lr=1e300)


def test_ranks_that_end_with_other_weights_than_the_first_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"ranks 'r2' disagree with rank 'r0' on the trained weights, expected equal ones"):
        train(Drifts, ranks(4, 4, 4))


def test_ranks_that_start_from_other_weights_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"ranks 'r1' disagree with rank 'r0' on the start weights.* depend on its process"):
        train(Differs)


def test_ranks_with_rows_of_another_kind_are_refused() -> None:
    rows = portion("r1", 4).rows
    other = {"r1": [Portion("r1", "main", Rows(rows.x, rows.y, rows.keys, ("a", "b", "d")), Exclusions({}))]}
    with pytest.raises(
        InputError, match=r"training 'm': rank 'r1' has classes .*'d'.*, rank 'r0' has .*'c'.*; expected the same"
    ):
        train(held=ranks(6) | other)
    with pytest.raises(InputError, match=r"rank 'r1' has inputs of shape \(5,\), rank 'r0' has \(4,\)"):
        train(held=ranks(6) | {"r1": [portion("r1", 4, width=5)]})
    single = {"r1": [Portion("r1", "main", Rows(rows.x.float(), rows.y, rows.keys, CLASSES), Exclusions({}))]}
    with pytest.raises(InputError, match=r"rank 'r1' has inputs of type torch.float32, rank 'r0' has torch.float64"):
        train(held=ranks(6) | single)


def test_a_net_that_cannot_be_sent_is_refused() -> None:
    class Local(Plain):
        pass

    with pytest.raises(InputError, match=r"a net of class Local cannot be sent .* defined at the top level of a module"):
        train(Local)
    with pytest.raises(InputError, match=r"cannot be made again in the process of a rank \(RuntimeError: not here\)"):
        train(Unmakeable)


def test_excluded_rows_are_refused_before_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(born_by, "_started", None)
    excluded = Exclusions({"r-7": Selection(samples=("main/r12",))})
    with pytest.raises(ExcludedError, match=r"training on 1 excluded rows of shard 'main' .*'r12'.* request r-7"):
        train(held=ranks(6) | {"r1": [portion("r1", 5, excluded)]})
