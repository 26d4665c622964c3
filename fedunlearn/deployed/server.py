"""The ServerApp: carries out the order of its run-config, and prints the answer where `flwr log` finds it."""

from collections.abc import Sequence

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedunlearn.deployed.coordinator import carry_out, families_here
from fedunlearn.deployed.homecoming import plain_files
from fedunlearn.deployed.order import Order
from fedunlearn.deployed.wire import SAYS, lines
from fedunlearn.errors import FedUnlearnError
from fedunlearn.runtime import Family
from fedunlearn.runtime.flower import Flower

app = ServerApp()


class Refused(Exception):
    """The order could not be carried out; why is in the answer. Ends the run as failed."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out one order; Flower calls a run failed when this raises."""
    token = str(context.run_config.get("token", "answer"))
    order: Order | None = None
    try:
        order = Order.of(context.run_config)
        backend = Flower(grid, deadline=order.deadline, join=order.join)

        def wait(sites: Sequence[str]) -> None:
            say(f"waiting for {', '.join(sites)}")
            backend.wait(sites)

        answer = carry_out(order, families_here(), backend, wait, say)
        told = list(lines(token, answer))
    except FedUnlearnError as error:
        _print(*lines(token, {"error": str(error), "exit_status": error.exit_status, "family": _as_it_is(order)}))
        raise refused(error) from None
    _print(*told)


def refused(error: FedUnlearnError) -> Refused:
    """Say why an order was not carried out, and what ends the run."""
    say(f"error: {error}")
    return Refused(f"the order was not carried out: {error}")


def _as_it_is(order: Order | None) -> dict[str, str] | None:
    """The family's plain files after an order failed: something may be committed, and not yet everywhere."""
    if order is None:
        return None
    try:
        return plain_files(Family.open(families_here() / order.family), order.has)
    except FedUnlearnError:
        return None  # there is none, or it cannot be read: that is what the error says


def say(text: str) -> None:
    """One line of progress; what a site has said cannot make it two."""
    _print(SAYS + " ".join(text.split()))


def _print(*told: str) -> None:
    for line in told:
        print(line, flush=True)
