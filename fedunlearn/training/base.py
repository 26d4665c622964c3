"""What every birth takes and gives."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from fedunlearn.data import Exclusions, Rows
from fedunlearn.lineage import Model, Shard
from fedunlearn.nets import weights_of
from fedunlearn.tensors import Tensors


@dataclass(frozen=True)
class Portion:
    """Rows of one shard of a site, on their way into training.

    Args:
        site: who holds them.
        shard: the shard's name there.
        rows: the rows, labelled by the outputs of the model to be trained.
        exclusions: what the site must not train on; the training loop refuses it.
    """

    site: str
    shard: str
    rows: Rows
    exclusions: Exclusions

    @property
    def entry(self) -> Shard:
        """As the lineage records it."""
        return Shard(self.site, self.shard, self.rows.counts())


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Args:
        name: of the model that comes out.
        home: who holds it.
        parents: what it starts from.
        head: names of its outputs.
        epochs: passes over the rows (a round, where there are rounds).
        lr: learning rate of SGD with momentum 0.9.
        batch: rows a step.
        seed: of the order of the rows; derived from the run's seed and the model's name.
        device: where to train; weights come back on the CPU.
        precision: "float32", or "bf16" to compute losses under autocast (weights and gradients stay float32).
        schedule: "constant", or "cosine" to let the learning rate fall to zero over this training (Loshchilov and Hutter 2017,
            arXiv 1608.03983, without restarts).
    """

    name: str
    home: str
    parents: tuple[str, ...]
    head: tuple[str, ...]
    epochs: int
    lr: float
    batch: int
    seed: int
    device: str = "cpu"
    precision: str = "float32"
    schedule: str = "constant"


@dataclass(frozen=True)
class Born:
    """A new model.

    Args:
        model: its place in the lineage.
        weights: empty where it is not kept and whoever trained it let them go.
        state: what training may go on with later, beside the weights: the moments of a server's optimiser.
        version: its name where its home has written it already; empty where that is still to be done.
    """

    model: Model
    weights: Tensors
    state: Tensors = field(default_factory=dict)
    version: str = ""


def born(kind: str, recipe: Recipe, net: nn.Module, portions: Iterable[Portion]) -> Born:
    """The trained net as a node of the lineage; portions without rows left no trace in it."""
    entries = tuple(p.entry for p in portions if len(p.rows))
    size = sum(p.numel() for p in net.parameters())
    model = Model(recipe.name, recipe.home, kind, recipe.head, recipe.parents, entries, size=size)
    return Born(model, weights_of(net))


def seed_of(seed: int, *names: str) -> int:
    """A seed of its own for everything that has a name, the same on every machine and in every order."""
    return int.from_bytes(hashlib.blake2s("/".join([str(seed), *names]).encode(), digest_size=6).digest(), "big")
