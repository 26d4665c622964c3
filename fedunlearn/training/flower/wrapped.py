"""A strategy around a strategy: what both the watched federation and the recorder of a user's app are."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


class Wrapped(Strategy):
    """Leaves every decision to the strategy inside.

    Args:
        inside: the strategy.
    """

    def __init__(self, inside: Strategy) -> None:
        self.inside = inside

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Who trains, on what."""
        return self.inside.configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One model from many."""
        return self.inside.aggregate_train(server_round, replies)

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Who evaluates."""
        return self.inside.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """One score from many."""
        return self.inside.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the settings of the strategy inside."""
        self.inside.summary()
