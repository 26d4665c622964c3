"""Ranks are processes: together they take the steps of one process, and what goes wrong in one is said and ends all."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedunlearn.data import Exclusions, Rows, Selection
from fedunlearn.errors import ExcludedError, InputError, ShapeError, TrainingError
from fedunlearn.nets import build, weights_of
from fedunlearn.tensors import Tensors, equal
from fedunlearn.training import Born, Portion, Recipe, distributed, incremental, seed_of
from fedunlearn.training.fit import MOMENTUM
from fedunlearn.training.rank import digest

CLASSES = ("a", "b", "c")
born_by = sys.modules["fedunlearn.training.distributed"]


def portion(site: str, rows: int, excluded: Exclusions | None = None, width: int = 4) -> Portion:
    generator = torch.Generator().manual_seed(sum(site.encode()))
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    keys = tuple(f"{site}{i}" for i in range(rows))
    return Portion(site, "main", Rows(x, torch.arange(rows) % 3, keys, CLASSES), excluded or Exclusions({}))


def make(seed: int = 0) -> nn.Module:
    return build({"name": "mlp", "hidden": 8}, (4,), 3, seed).double()


def image_net() -> nn.Module:
    return build({"name": "cnn", "channels": 4}, (3, 8, 8), 3)


def recipe(**changes: Any) -> Recipe:
    plain = {"name": "m", "home": "h", "parents": (), "head": CLASSES, "epochs": 3, "lr": 0.05, "batch": 8, "seed": 1}
    return Recipe(**{**plain, **changes})


def ranks(*rows: int) -> dict[str, list[Portion]]:
    return {f"r{i}": [portion(f"r{i}", n)] for i, n in enumerate(rows)}


def train(net: Callable[[], nn.Module] = make, held: dict[str, list[Portion]] | None = None, **changes: Any) -> Born:
    return distributed(recipe(**changes), net, weights_of(net()), held or ranks(6, 6))


def close(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], rtol=0, atol=1e-10) for n in a)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


# Nets that misbehave: at the top level, as the processes import them from here.


class Plain(nn.Module):
    """Two layers, and what a test does to them before every step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5, dtype=torch.float64)
        self.head = nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.step()
        return self.head(torch.relu(self.body(x)))  # type: ignore[no-any-return]

    def step(self) -> None: ...


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


class Spare(Plain):
    """Has a layer that its output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2, dtype=torch.float64)


class Unmakeable(Plain):
    def __setstate__(self, state: dict[str, Any]) -> NoReturn:
        raise RuntimeError("not here")


class Normed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


# Laws


@pytest.mark.parametrize("number", [2, 4])
def test_equal_shards_and_full_batches_are_one_process_on_the_summed_batch(number: int) -> None:
    held = ranks(*[12 // number] * number)
    together = train(held=held, batch=12, epochs=5)
    alone = incremental(recipe(batch=12, epochs=5), make, weights_of(make()), [p for ps in held.values() for p in ps])
    assert close(together.weights, alone.weights)
    assert not close(together.weights, weights_of(make()))
    assert [s.key for s in together.model.data] == [f"r{i}/main" for i in range(number)]
    assert together.model.born == "distributed"


def averaged(settings: Recipe, held: dict[str, list[Portion]]) -> Tensors:
    """The slow, plain version: one process that goes through the ranks, in the order that each of them draws."""
    net = make()
    optimiser = torch.optim.SGD(net.parameters(), lr=settings.lr, momentum=MOMENTUM)
    each = settings.batch // len(held)
    steps = max(-(-len(ps[0].rows) // each) for ps in held.values())
    generators = [torch.Generator().manual_seed(seed_of(settings.seed, "rank", str(n))) for n in range(len(held))]
    for _ in range(settings.epochs):
        orders = [torch.randperm(len(ps[0].rows), generator=g) for ps, g in zip(held.values(), generators, strict=True)]
        for step in range(steps):
            sums = [torch.zeros_like(p) for p in net.parameters()]
            for (part,), order in zip(held.values(), orders, strict=True):
                rows = order.repeat(steps * each)[step * each : (step + 1) * each]
                loss = functional.cross_entropy(net(part.rows.x[rows]), part.rows.y[rows])
                for total, gradient in zip(sums, torch.autograd.grad(loss, list(net.parameters())), strict=True):
                    total += gradient / len(held)
            for parameter, total in zip(net.parameters(), sums, strict=True):
                parameter.grad = total
            optimiser.step()
    return weights_of(net)


@pytest.mark.parametrize("rows", [(8, 8), (9, 2), (5, 7, 1)])
def test_minibatches_step_on_the_mean_gradient_and_uneven_ranks_keep_in_step(rows: tuple[int, ...]) -> None:
    held = ranks(*rows)
    assert close(train(held=held, batch=6).weights, averaged(recipe(batch=6), held))


def test_the_same_seed_gives_the_same_model_and_another_does_not() -> None:
    one, two, other = (train(held=ranks(9, 5), seed=s).weights for s in (1, 1, 2))
    assert equal(one, two)
    assert not equal(one, other)


def test_a_rank_without_rows_takes_no_part_and_a_rank_alone_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"nobody": [portion("nobody", 0)]}
    assert equal(train(held=empty | ranks(7, 6)).weights, train(held=ranks(7, 6)).weights)
    monkeypatch.setattr(born_by, "_started", None)
    alone = train(held=ranks(9) | empty)
    assert equal(alone.weights, incremental(recipe(), make, weights_of(make()), ranks(9)["r0"]).weights)
    assert [s.key for s in alone.model.data] == ["r0/main"]
    assert equal(train(held=empty).weights, weights_of(make()))


def test_buffers_are_those_of_the_first_rank() -> None:
    held = ranks(6, 6)
    trained = train(Normed, held, batch=12, epochs=1).weights
    first = held["r0"][0].rows.x
    assert torch.allclose(trained["norm.running_mean"], 0.1 * first.mean(0), rtol=1e-10)


def test_a_parameter_that_nothing_depends_on_stays_as_it_was() -> None:
    torch.manual_seed(0)
    start = weights_of(Spare())
    trained = distributed(recipe(), Spare, start, ranks(6, 6)).weights
    assert torch.equal(trained["unused.weight"], start["unused.weight"])
    assert not torch.equal(trained["body.weight"], start["body.weight"])


def test_ranks_compute_in_bf16_too() -> None:
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    held = {r: [Portion(r, "main", Rows(x, torch.arange(6) % 3, tuple("abcdef"), CLASSES), Exclusions({}))] for r in ("a", "b")}
    start = weights_of(image_net())
    half, full = (distributed(recipe(precision=p), image_net, start, held).weights for p in ("bf16", "float32"))
    assert {t.dtype for t in half.values()} == {torch.float32}
    assert not equal(half, full)
    assert all(torch.allclose(half[n], full[n], atol=0.02) for n in half)


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


# How it is started


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    """The processes have no use for the caller's script, so that they must not run it."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import torch
        from fedunlearn.data import Exclusions, Rows
        from fedunlearn.nets import build, weights_of
        from fedunlearn.training import Portion, Recipe, distributed

        print("run", __name__)
        rows = Rows(torch.randn(4, 4), torch.arange(4) % 2, tuple("abcd"), ("x", "y"))
        make = lambda: build({"name": "mlp"}, (4,), 2)
        held = {name: [Portion(name, "main", rows, Exclusions({}))] for name in "ab"}
        recipe = Recipe("m", "h", (), ("x", "y"), 1, 0.1, 4, 0)
        print(distributed(recipe, make, weights_of(make()), held).model.name)
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["run __main__", "m", ""]), done.stderr


def test_a_digest_sees_names_shapes_types_and_values() -> None:
    one = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    others: list[Tensors] = [
        {"a": torch.zeros(3, 2), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "c": torch.tensor(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(2)},
    ]
    assert digest(one) == digest(dict(reversed(one.items())))
    assert digest(one) not in [digest(o) for o in others]


@pytest.mark.gpu
@pytest.mark.parametrize("number", [2, 4])
def test_ranks_on_gpus_are_one_process_on_the_summed_batch(number: int) -> None:
    """With a GPU for every rank over nccl; with fewer over gloo."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")
    held = ranks(*[12 // number] * number)
    together = train(held=held, batch=12, device="cuda")
    alone = incremental(recipe(batch=12, device="cuda"), make, weights_of(make()), [p for ps in held.values() for p in ps])
    assert close(together.weights, alone.weights)
