"""A federation's rounds by name: what each starts from, which models stay, what a failure is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from fedunlearn.errors import InputError, TrainingError
from fedunlearn.lineage import Model, Shard
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Born, Portion, Recipe, seed_of

Keep = str | Mapping[str, int]
Make = Callable[[], nn.Module]


def kept_rounds(keep: Keep, rounds: int, where: str = "keep") -> frozenset[int]:
    """The rounds whose global model is kept; the last always is.

    Args:
        keep: "last", "all" (then the clients' models are kept too), or {"every": n} for rounds n, 2n, ... and the last.
        rounds: how many rounds there are.
        where: what to call it in an error.

    Raises:
        InputError: there is no such policy, or it keeps nothing that "last" would not.
    """
    choices = f"expected 'last', 'all' or {{'every': n}} with n from 1 to {rounds}, the number of rounds"
    if keep == "all":
        return frozenset(range(1, rounds + 1))
    if keep == "last":
        return frozenset({rounds})
    if isinstance(keep, str) or set(keep) != {"every"}:
        raise InputError(f"{where}: keep is {keep!r}; {choices}")
    every = keep["every"]
    if not isinstance(every, int) or isinstance(every, bool) or not 1 <= every <= rounds:
        raise InputError(f"{where}: keep every {every!r} rounds keeps no round; {choices}")
    return frozenset({*range(every, rounds + 1, every), rounds})


@dataclass(frozen=True)
class Course:
    """A federation's rounds by name: what each starts from, and which models stay. Whoever runs the rounds asks here.

    Args:
        recipe: settings of each client's local training.
        data: what each client that holds rows is trained on, in the order in which they are averaged.
        rounds: how many.
        kept: rounds whose global model stays.
        locals_too: whether the clients' models stay.
        size: how many parameters the model has.
        clients: the rows themselves, of the same clients; empty where they are not in this process.
    """

    recipe: Recipe
    data: Mapping[str, tuple[Shard, ...]]
    rounds: int
    kept: frozenset[int]
    locals_too: bool
    size: int
    clients: Mapping[str, Sequence[Portion]] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, make: Make, clients: Mapping[str, Sequence[Portion]], rounds: int, keep: Keep) -> "Course":
        """Check what was asked for; clients without rows take no part.

        Raises:
            InputError: there are no rounds, or `keep` is no policy.
        """
        course = cls.told(recipe, make, {c: tuple(p.entry for p in held) for c, held in clients.items()}, rounds, keep)
        return replace(course, clients={c: clients[c] for c in course.data})

    @classmethod
    def told(cls, recipe: Recipe, make: Make, data: Mapping[str, Sequence[Shard]], rounds: int, keep: Keep) -> "Course":
        """The same, where it is only known which rows the clients hold.

        Raises:
            InputError: there are no rounds, or `keep` is no policy.
        """
        where = f"model {recipe.name!r}"
        if rounds < 1:
            raise InputError(f"{where}: rounds is {rounds}, expected at least 1")
        kept = kept_rounds(keep, rounds, where)
        some = {c: tuple(s for s in held if any(s.rows.values())) for c, held in data.items()}
        size = sum(p.numel() for p in make().parameters())
        return cls(recipe, {c: held for c, held in some.items() if held}, rounds, kept, keep == "all", size)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each client."""
        return {c: sum(sum(s.rows.values()) for s in held) for c, held in self.data.items()}

    def name(self, number: int, client: str | None = None) -> str:
        """Of a round's global model, or of a client's in it."""
        if client is not None:
            return f"{self.recipe.name}/r{number}/{client}"
        return self.recipe.name if number == self.rounds else f"{self.recipe.name}/r{number}"

    def training(self, number: int, client: str) -> Recipe:
        """Settings of one client's training in one round: with a seed of its own, whoever runs it."""
        parents = self.recipe.parents if number == 1 else (self.name(number - 1),)
        seed = seed_of(self.recipe.seed, str(number), client)
        return replace(self.recipe, name=self.name(number, client), home=client, parents=parents, seed=seed)

    def local(self, number: int, client: str, weights: Tensors) -> Born:
        """A client's model after a round."""
        mine, data = self.training(number, client), self.data[client]
        model = Model(mine.name, client, "federated", mine.head, mine.parents, data, self.locals_too, self.size)
        return Born(model, weights)

    def merged(self, number: int, weights: Tensors, state: Tensors) -> Born:
        """A round's global model; only the last carries the server's state."""
        name, last = self.name(number), number == self.rounds
        parents = tuple(self.name(number, c) for c in self.data)
        model = Model(name, self.recipe.home, "federated", self.recipe.head, parents, (), number in self.kept, self.size)
        return Born(model, weights, state if last else {})

    def died(self, number: int, client: str, reason: str) -> TrainingError:
        """The error for a client whose training failed."""
        return TrainingError(
            f"model {self.recipe.name!r}: round {number} of {self.rounds}: client {client!r} died: {reason}; nothing of this "
            f"training was kept: mend the client, then train again"
        )
