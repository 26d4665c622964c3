"""What a site does towards a birth: it tells how many rows there are, and trains on its own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

from torch import nn

from fedunlearn.data import Exclusions, Selection, SiteData
from fedunlearn.errors import unknown
from fedunlearn.nets import MakeNet, head_of, load, weights_of
from fedunlearn.runtime.tasks import Survey, Surveyed, Train, Trained
from fedunlearn.store import Store
from fedunlearn.training import Portion, incremental, start_of, train_here, transfer

BIRTHS = ("federated", "incremental", "transfer")
LAYERS = ("head", "all")
NONE = Exclusions({})


def survey(task: Survey, data: SiteData, others: Exclusions = NONE) -> Surveyed:
    """How many rows of each class a place may train on, and has to test on.

    Args:
        task: which shards.
        data: of the place.
        others: what requests on other families have excluded there.

    Raises:
        InputError: there is no such shard here.
    """
    some = _but(data, task.without)
    mine = {name: some.training(name) for name in task.shards}
    rows = {name: others.keep(name, r) for name, r in mine.items()}
    shape = next((tuple(data.all(name).x.shape[1:]) for name in task.shards), ())
    test = data.held_out.get("test")
    return Surveyed(
        {name: r.counts() for name, r in rows.items()},
        {name: r.classes for name, r in rows.items()},
        shape,
        {} if test is None else test.counts(),
        {name: len(r) - len(rows[name]) for name, r in mine.items() if len(rows[name]) < len(r)},
    )


def train(task: Train, data: SiteData, store: Store, make_net: MakeNet, device: str) -> Trained:
    """Train one model on rows of the place.

    Args:
        task: what is asked.
        data: of the place.
        store: of the place; holds the versions that did not come along.
        make_net: makes nets of the family's architectures.
        device: where to train.

    Raises:
        InputError: there is no such shard or version here, or the birth is none of `BIRTHS`.
        ShapeError: what is started from does not fit the net, or training diverged.
    """
    if task.born not in BIRTHS:
        raise unknown("kind of birth", task.born, BIRTHS, where=f"training {task.recipe.name!r} at {task.place}")
    if task.layers not in LAYERS:
        raise unknown("choice of layers", task.layers, LAYERS, where=f"training {task.recipe.name!r} at {task.place}")
    recipe, held = replace(task.recipe, device=device), _but(data, task.without)
    rows = held.training(task.shard, task.classes).for_head(recipe.head)
    portions = [Portion(task.place, task.shard, rows, held.exclusions)]

    def make() -> nn.Module:
        net = make_net(len(recipe.head), task.net)
        return load(net, {**weights_of(net), **task.start})

    fresh = make()
    head = head_of(fresh, recipe.head)
    found = [task.sent.get(version) or store.read(version) for version in task.versions]
    start = start_of(task.born, [(f.weights, f.head) for f in found], weights_of(fresh), head)
    if task.born == "federated":
        weights = train_here(recipe, make, start, portions)
    elif task.born == "transfer":
        layers = cast(Literal["head", "all"], task.layers)
        weights = dict(transfer(recipe, make, start, portions, layers=layers).weights)
    else:
        weights = dict(incremental(recipe, make, start, portions).weights)
    version = store.write(weights, head, task.net) if task.keep else ""
    return Trained(version, rows.counts(), weights if task.give else {}, head)


def _but(data: SiteData, without: Mapping[str, Selection]) -> SiteData:
    """The data as if some more of it were excluded."""
    excluded = data.exclusions.beside("without", without)
    return replace(data, excluded=lambda: excluded)
