"""For apps that Flower runs already: a mod by which clients tell what they trained on, a strategy that writes it down."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedunlearn.data import open_site
from fedunlearn.errors import InputError, TrainingError
from fedunlearn.tensors import Tensors
from fedunlearn.training.flower.wrapped import Wrapped
from fedunlearn.training.recording import SHARD, Recording, Told

RECORD = "fedunlearn"  # the key of what a client tells, in its reply


def tell(data: str) -> Mod:
    """A mod for `ClientApp(mods=[tell("their.task:load_site")])`: every train reply says what it was trained on.

    The site is the node_config's `site`, or `site-<partition-id>`.

    Args:
        data: the loader of a site's training rows, called with the site's name; returns `(x, y)`, `(x, y, classes)` or
            `(x, y, classes, keys)`. It must give what the app trains on.
    """
    known: dict[str, Told] = {}  # no functools.cache: a simulation pickles the app, by what its functions close over

    def told(site: str) -> Told:
        if site not in known:
            rows = open_site(data, site)
            known[site] = Told(site, rows.classes, rows.counts())
        return known[site]

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if message.metadata.message_type.split(".")[0] == "train" and reply.has_content():
            one = told(site_of(context))
            said = ConfigRecord({"site": one.site, "shard": SHARD, "classes": list(one.classes)})
            said["rows"] = [one.rows.get(c, 0) for c in one.classes]
            reply.content[RECORD] = said
        return reply

    return mod


class Recorder(Wrapped):
    """A user's strategy, with every round's participants written down. What becomes of that, a subclass says.

    Args:
        inside: the user's strategy; it decides everything that it would decide alone.

    Raises:
        InputError: the strategy runs its rounds by a `start` of its own.
    """

    def __init__(self, inside: Strategy) -> None:
        if not isinstance(inside, Strategy):
            raise InputError(
                f"strategy {inside!r}: is a {type(inside).__name__}, expected a strategy of flwr.serverapp.strategy (those of "
                f"flwr.server.strategy belong to the former API: move the app to the Message API first)"
            )
        if type(inside).start is not Strategy.start:
            raise InputError(
                f"strategy {type(inside).__name__}: has a `start` of its own, so that its rounds cannot be seen from outside; "
                f"move what it does there to configure_train and aggregate_train"
            )
        super().__init__(inside)
        self._rounds: dict[int, tuple[Told, ...]] = {}
        self._failed: dict[str, None] = {}

    @abstractmethod
    def begins(self, weights: Tensors) -> None:
        """Find out before the first round whether the family can be written at the end."""

    @abstractmethod
    def ends(self, recording: Recording) -> None:
        """Write the family."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take down who took part, then let the strategy see what it would have seen."""
        answered = list(replies)
        self._failed |= {str(m.error.reason): None for m in answered if m.has_error()}
        told = [_take(m) for m in answered if not m.has_error()]
        twice = sorted({t.site for t in told if [u.site for u in told].count(t.site) > 1})
        if twice:
            raise InputError(
                f"round {server_round}: several clients are site {twice[0]!r}; give each a `site` in its node_config"
            )
        arrays, metrics = self.inside.aggregate_train(server_round, answered)
        if arrays is not None:
            self._rounds[server_round] = tuple(sorted(told, key=lambda t: t.site))
        return arrays, metrics

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds, as Flower does, and write the family.

        Raises:
            InputError: a client does not tell what it trained on, or the family could not be written.
            TrainingError: no round gave a model.
        """
        self.begins(dict(initial_arrays.to_torch_state_dict()))
        self._rounds, self._failed, started = {}, {}, time.perf_counter()
        result = super().start(grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
        if not self._rounds:
            said = "; ".join(list(self._failed)[:3]) or "none"
            raise TrainingError(f"no round gave a model, so that there is nothing to record; errors of the clients: {said}")
        weights = dict(result.arrays.to_torch_state_dict()) if result.arrays else {}
        self.ends(Recording(self._rounds, weights, type(self.inside).__name__, time.perf_counter() - started))
        return result


def site_of(context: Context) -> str:
    """A node's site: its node_config's `site`, or `site-<partition-id>`.

    Raises:
        InputError: it has neither.
    """
    config = context.node_config
    if "site" not in config and "partition-id" not in config:
        raise InputError(f"node_config {dict(config)}: names neither `site` nor `partition-id`; give the node a `site`")
    return str(config["site"]) if "site" in config else f"site-{config['partition-id']}"


def _take(message: Message) -> Told:
    if RECORD not in message.content:
        raise InputError(
            f"the reply of node {message.metadata.src_node_id} does not say what it was trained on; make the client's app with "
            f'ClientApp(mods=[tell("their.task:load_site")])'
        )
    said = message.content.config_records[RECORD]
    del message.content[RECORD]
    classes, rows = cast(list[str], said["classes"]), cast(list[int], said["rows"])
    return Told(str(said["site"]), tuple(classes), {c: n for c, n in zip(classes, rows, strict=True) if n})
