"""Ranks are processes: together they take the steps of one process."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedunlearn.data import Exclusions, Rows
from fedunlearn.nets import build, weights_of
from fedunlearn.tensors import Tensors, equal
from fedunlearn.training import Portion, Recipe, distributed, incremental, seed_of
from fedunlearn.training.fit import MOMENTUM
from fedunlearn.training.rank import digest
from tests.training.ranks import (
    CLASSES,
    Plain,
    _no_process_is_left as _no_process_is_left,
    born_by,
    close,
    make,
    portion,
    ranks,
    recipe,
    train,
)


def image_net() -> nn.Module:
    return build({"name": "cnn", "channels": 4}, (3, 8, 8), 3)


# Nets at the top level, as the processes import them from here.


class Spare(Plain):
    """Has a layer that its output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2, dtype=torch.float64)


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
