"""Shadow models: nets like the one under attack, each trained on a random half of the rows. Trained once, kept, reused.

A pool is named by the content of what it is made from, so that another method, another heir of the same kind or another run
finds it; what a crash interrupted goes on where it stopped. Shadow models know what they were trained on: keep a pool like the
data itself, and delete it with the data.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from blake3 import blake3
from safetensors.torch import save
from torch import Tensor, nn

from fedunlearn.data import Exclusions, Rows
from fedunlearn.errors import InputError, StoreError
from fedunlearn.evaluation.outputs import logits, margins
from fedunlearn.nets import load, weights_of
from fedunlearn.store.files import behind_hash, tensors_in, with_hash, write_atomically
from fedunlearn.training import Portion, Recipe, fit, seed_of

Make = Callable[[int], nn.Module]  # a freshly initialised net, from a seed
Unlearn = Callable[[nn.Module, Rows, Rows, Rows], nn.Module]  # net, rows it forgets, keeps, and never saw -> the edited net
NOT_CONTENT = ("name", "home", "parents", "device")  # of a recipe: they change no weight


@dataclass(frozen=True)
class Shadows:
    """A trained pool.

    Args:
        folder: where its weights are.
        rows: the population, of which each model was trained on a half.
        inside: which model was trained on which row, bool [K, N]; models 2j and 2j + 1 have complementary halves.
        make: nets as they were before training.
    """

    folder: Path
    rows: Rows
    inside: Tensor
    make: Make

    def __len__(self) -> int:
        return len(self.inside)

    def net(self, number: int) -> nn.Module:
        """One of the models, in eval mode.

        Raises:
            StoreError: its file is damaged.
        """
        return load(self.make(0), read_shadow(_file(self.folder, number))).eval()

    def margins_of(self, targets: Rows) -> Tensor:
        """What each model says to any rows, in the pool or not: margins [K, T], nats."""
        return torch.stack([margins(logits(self.net(k), targets), targets.y) for k in range(len(self))])

    def margins(
        self, targets: Rows, unlearn: Unlearn | None = None, progress: Callable[[str], None] = lambda _: None
    ) -> tuple[Tensor, Tensor]:
        """What each model says to some rows, after it was made to forget those of them that it was trained on.

        Args:
            targets: rows of the population, T.
            unlearn: the method under test; by default nothing is unlearned (plain LiRA).
            progress: told, in words, what is being done.

        Returns:
            Margins [K, T], nats, and which model was trained on which row [K, T].

        Raises:
            InputError: a row is not in the population.
        """
        where = {key: i for i, key in enumerate(self.rows.keys)}
        missing = [key for key in targets.keys if key not in where]
        if missing:
            raise InputError(f"shadows: {len(missing)} rows are not in the pool (first: {missing[0]!r}); train one with them")
        index = torch.tensor([where[key] for key in targets.keys], dtype=torch.int64)
        aimed = torch.zeros(len(self.rows), dtype=torch.bool)
        aimed[index] = True
        found = []
        for k in range(len(self)):
            net = self.net(k)
            if unlearn is not None:
                progress(f"shadow {k + 1} of {len(self)}: unlearning")
                inside = self.inside[k]
                parts = (inside & aimed, inside & ~aimed, ~inside & ~aimed)
                net = unlearn(net, *(self.rows.take(part.nonzero()[:, 0]) for part in parts)).eval()
            found.append(margins(logits(net, targets), targets.y))
        return torch.stack(found), self.inside[:, index]


def read_shadow(file: Path) -> dict[str, Tensor]:
    """Weights of one model of a pool.

    Raises:
        StoreError: the file is damaged, or gone.
    """
    try:
        return tensors_in(behind_hash(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: not a readable shadow model ({error}); delete it, and it is trained again") from error


def train_shadows(
    folder: Path, rows: Rows, make: Make, recipe: Recipe, number: int, progress: Callable[[str], None] = lambda _: None
) -> Shadows:
    """Train a pool, or what is missing of it.

    Whether a row is in a model's half depends on the row's key, the recipe's seed and the model's number alone: every row is in
    exactly half of the models, and a pool of more models begins with those of a smaller one.

    Args:
        folder: where pools are kept; this one gets a folder in it that is named by its content.
        rows: the population: what the model under attack was trained on, and as many like them that it was not.
        make: a freshly initialised net from a seed.
        recipe: how the model under attack was trained; `head` names the outputs that `rows` are labelled by.
        number: how many models, even, at least 4; 16 to 64 are usual.
        progress: told, in words, what is being done.

    Raises:
        InputError: the number is odd or too small, or the rows are labelled otherwise.
    """
    if number < 4 or number % 2:
        raise InputError(f"shadows: {number} models, expected an even number of 4 or more (each row is in half of them)")
    if rows.classes != recipe.head:
        raise InputError(f"shadows: rows are labelled by {list(rows.classes)}, the recipe's head is {list(recipe.head)}")
    here = folder / _content(rows, make, recipe)
    coins = torch.tensor([[_coin(recipe.seed, j, key) for key in rows.keys] for j in range(number // 2)], dtype=torch.bool)
    inside = torch.stack([coins, ~coins], 1).flatten(0, 1)
    for k in range(number):
        if _file(here, k).exists():
            continue
        progress(f"shadow {k + 1} of {number}: training")
        seed = seed_of(recipe.seed, "shadow", str(k))
        half = Portion("shadows", "half", rows.take(inside[k].nonzero()[:, 0]), Exclusions({}))
        net = fit(make(seed), [half], replace(recipe, name=f"shadow {k}", seed=seed))
        write_atomically(_file(here, k), with_hash(save(weights_of(net))))
    return Shadows(here, rows, inside, make)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:03}.safetensors"


def _coin(seed: int, pair: int, key: str) -> bool:
    return bool(hashlib.blake2s(f"{seed}/{pair}/{key}".encode(), digest_size=1).digest()[0] & 1)


def _content(rows: Rows, make: Make, recipe: Recipe) -> str:
    """A name for all that the weights depend on: settings, rows, and the net as it is made."""
    fresh = make(recipe.seed)
    settings = {k: v for k, v in asdict(recipe).items() if k not in NOT_CONTENT}
    said = json.dumps([settings, list(rows.keys), rows.y.tolist(), str(fresh)], sort_keys=True)
    content = blake3(said.encode()).update(rows.x.contiguous().numpy().tobytes())
    return content.update(save(weights_of(fresh))).hexdigest()[:32]
