"""Each kind of birth does what its name says, and the lineage records it as it happens."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedunlearn.data import Exclusions, Rows, Selection
from fedunlearn.errors import ExcludedError, InputError, ShapeError
from fedunlearn.nets import build, weights_of
from fedunlearn.tensors import average, equal
from fedunlearn.training import Portion, Recipe, distributed, federated, fit, incremental, seed_of, transfer

CLASSES = ("a", "b", "c")


def portion(site: str, rows: int, seed: int, excluded: Exclusions | None = None) -> Portion:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    y = torch.arange(rows) % 3
    return Portion(site, "main", Rows(x, y, tuple(f"{site}{i}" for i in range(rows)), CLASSES), excluded or Exclusions({}))


def make(outputs: int = 3, seed: int = 0) -> nn.Module:
    return build({"name": "mlp", "hidden": 8}, (4,), outputs, seed).double()


def recipe(**changes: object) -> Recipe:
    plain = {"name": "m", "home": "h", "parents": ("p",), "head": CLASSES, "epochs": 2, "lr": 0.05, "batch": 4, "seed": 1}
    return Recipe(**{**plain, **changes})  # type: ignore[arg-type]


START = weights_of(make())


def test_every_round_and_every_client_is_a_node_and_only_the_last_is_kept() -> None:
    clients = {"n": [portion("n", 8, 0)], "s": [portion("s", 4, 1)], "nobody": [portion("nobody", 0, 2)]}
    born = [b.model for b in federated(recipe(), make, START, clients, rounds=2)]
    assert [m.name for m in born] == ["m/r1/n", "m/r1/s", "m/r1", "m/r2/n", "m/r2/s", "m"]
    assert [m.kept for m in born] == [False] * 5 + [True]
    assert born[0].parents == ("p",)
    assert born[3].parents == ("m/r1",)
    assert born[5].parents == ("m/r2/n", "m/r2/s")
    assert [s.key for s in born[0].data] == ["n/main"]
    assert not born[5].data
    assert born[0].data[0].rows == {"a": 3, "b": 3, "c": 2}


def test_an_average_weighs_clients_by_their_rows() -> None:
    born = list(federated(recipe(), make, START, {"n": [portion("n", 9, 0)], "s": [portion("s", 3, 1)]}, rounds=1))
    assert equal(born[2].weights, average([born[0].weights, born[1].weights], [9, 3]))


def test_one_client_and_one_round_is_incremental_training() -> None:
    alone = list(federated(recipe(), make, START, {"n": [portion("n", 8, 0)]}, rounds=1))[-1]
    same = incremental(recipe(seed=seed_of(1, "1", "n")), make, START, [portion("n", 8, 0)])
    assert all(torch.allclose(alone.weights[k], v, rtol=1e-12) for k, v in same.weights.items())


def test_ranks_train_on_the_mean_of_their_gradients() -> None:
    """Full batches and equal shards: two ranks take the steps that one process takes on all rows."""
    ranks = {"n": [portion("n", 6, 0)], "s": [portion("s", 6, 1)]}
    both = [p for held in ranks.values() for p in held]
    two = distributed(recipe(batch=12), make, START, ranks)
    one = incremental(recipe(batch=12), make, START, both)
    assert all(torch.allclose(two.weights[k], v, rtol=1e-10, atol=1e-12) for k, v in one.weights.items())
    assert [s.key for s in two.model.data] == ["n/main", "s/main"]


def test_uneven_ranks_keep_in_step() -> None:
    born = distributed(recipe(), make, START, {"n": [portion("n", 9, 0)], "s": [portion("s", 2, 1)], "x": [portion("x", 0, 2)]})
    assert [s.site for s in born.model.data] == ["n", "s"]
    assert not equal(born.weights, START)


def test_a_transfer_trains_the_new_head_alone() -> None:
    rows = portion("n", 9, 0).rows.for_head(("c", "a"))
    part = Portion("n", "main", rows, Exclusions({}))
    born = transfer(recipe(head=("c", "a")), lambda: make(2, 5), START, [part])
    body = {k: v for k, v in born.weights.items() if not k.startswith("head")}
    assert equal(body, {k: START[k] for k in body})
    assert born.weights["head.weight"].shape[0] == 2
    assert not torch.equal(born.weights["head.weight"], weights_of(make(2, 5))["head.weight"])


def test_without_rows_nothing_is_trained() -> None:
    assert equal(incremental(recipe(), make, START, [portion("n", 0, 0)]).weights, START)
    (alone,) = federated(recipe(), make, START, {"n": [portion("n", 0, 0)]}, rounds=2)
    assert alone.model.kept
    assert equal(alone.weights, START)
    with pytest.raises(InputError, match="rounds is 0"):
        list(federated(recipe(), make, START, {"n": [portion("n", 3, 0)]}, rounds=0))


BIRTHS: dict[str, Callable[[Portion], object]] = {
    "federated": lambda p: list(federated(recipe(), make, START, {"n": [p]}, 1)),
    "distributed": lambda p: distributed(recipe(), make, START, {"n": [p]}),
    "incremental": lambda p: incremental(recipe(), make, START, [p]),
    "transfer": lambda p: transfer(recipe(), make, START, [p]),
}


@pytest.mark.parametrize("birth", BIRTHS)
def test_training_on_an_excluded_row_is_an_error(birth: str) -> None:
    excluded = Exclusions({"r-7": Selection(samples=("main/n2",))})
    with pytest.raises(ExcludedError, match=r"training on 1 excluded rows of shard 'main' .*'n2'.* request r-7"):
        BIRTHS[birth](portion("n", 5, 0, excluded))


def test_the_same_seed_gives_the_same_model_and_another_does_not() -> None:
    one, two, other = (incremental(recipe(seed=s), make, START, [portion("n", 9, 0)]).weights for s in (1, 1, 2))
    assert equal(one, two)
    assert not equal(one, other)


def test_divergence_is_said_and_not_kept() -> None:
    with pytest.raises(ShapeError, match=r"training 'm' diverged to NaN or infinity; lower lr \(it is 1e\+300"):
        fit(make(), [portion("n", 9, 0)], recipe(lr=1e300))


def test_a_penalty_is_added_to_the_loss_of_every_step() -> None:
    """One step: the gradient of 3 times the sum of all parameters is 3 for each of them."""
    one = recipe(epochs=1, batch=9)
    plain, pulled = make(), make()
    fit(plain, [portion("n", 9, 0)], one)
    fit(pulled, [portion("n", 9, 0)], one, penalty=lambda net: 3 * torch.stack([p.sum() for p in net.parameters()]).sum())
    shifted = {n: t - one.lr * 3 for n, t in weights_of(plain).items()}
    assert all(torch.allclose(t, shifted[n], rtol=1e-12) for n, t in weights_of(pulled).items())


def test_bf16_computes_in_half_the_bits_and_keeps_weights_in_full() -> None:
    x = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    part = Portion("n", "main", Rows(x, torch.arange(12) % 3, tuple(map(str, range(12))), CLASSES), Exclusions({}))
    nets = {p: build({"name": "cnn", "channels": 4}, (3, 8, 8), 3) for p in ("float32", "bf16")}
    start = weights_of(nets["bf16"])
    seen: list[torch.dtype] = []
    nets["bf16"].register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    for precision, net in nets.items():
        fit(net, [part], recipe(precision=precision))
    full, half = (weights_of(net) for net in nets.values())
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in half.values()} == {torch.float32}
    assert all(t.is_contiguous() for t in half.values())
    assert not equal(half, full)
    moved, apart = (sum(float((a[n] - b[n]).square().sum()) for n in a) for a, b in ((full, start), (full, half)))
    assert apart < 0.01 * moved


def test_seeds_belong_to_names() -> None:
    assert seed_of(1, "a", "b") == seed_of(1, "a", "b")
    assert len({seed_of(1, "a", "b"), seed_of(1, "a"), seed_of(2, "a"), seed_of(1, "b")}) == 4


def test_a_cosine_schedule_ends_at_zero_and_a_constant_one_changes_nothing() -> None:
    """One epoch of one full batch: the first step is the whole rate under both, so both agree; with more steps they differ."""
    rows = [portion("n", 9, 0)]
    once = [incremental(recipe(epochs=1, batch=9, schedule=s), make, START, rows).weights for s in ("constant", "cosine")]
    assert equal(*once)
    twice = [incremental(recipe(epochs=2, batch=9, schedule=s), make, START, rows).weights for s in ("constant", "cosine")]
    moved = [sum(float((w[n] - once[0][n]).square().sum()) for n in w) for w in twice]
    assert 0 < moved[1] < moved[0]
