"""For apps written for Flower: names that make an app's federation a family, and let it forget over its own Grid.

Needs `pip install "fedunlearn[flower]"`. `tell` and `Recorded` write the family down; with `answering` around the ClientApp and
`forgetting` around the ServerApp, `flwr run . -c 'fedunlearn="unlearn classes=0"'` makes it forget; "rollback" takes it back.
"""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedunlearn.deployed.coordinator import carry_out
from fedunlearn.deployed.order import Order
from fedunlearn.deployed.server import refused, say
from fedunlearn.errors import FedUnlearnError, InputError, unknown
from fedunlearn.runtime.flower import Flower, add_handlers
from fedunlearn.scenario import Site
from fedunlearn.scenario.adopt import Adoption
from fedunlearn.scenario.site import Own, SiteFile
from fedunlearn.tensors import Tensors
from fedunlearn.training.flower import Recorder, tell
from fedunlearn.training.flower.recorded import site_of
from fedunlearn.training.recording import Recording

__all__ = ["Recorded", "answering", "forgetting", "tell"]

KEY = "fedunlearn"  # of the run-config


class Recorded(Recorder):
    """A Flower strategy around a Flower strategy: at the end of `start` the federation is a family in a folder.

    The strategy inside decides everything that it would decide alone. The clients' app needs the mod `tell`.

    Args:
        strategy: the app's strategy; one of flwr.serverapp.strategy, or derived from one, without a `start` of its own.
        folder: of the family; must be empty or not there.
        net: "their.module:make_net", called as `make_net(shape, outputs)`; its last linear layer is the head.
        data: "their.module:load_site", called with a site's name: what that site trains on, the one that `tell` has.
        test: the same for held-out rows that nobody trains on, called with "test"; or a set or a file. By default `data`.
        name: what the model is called in the family.
        recipe: how clients train, as a topology says it (epochs, lr, batch); needed only to train on from the family.
        sites: "own" in a deployment, where `data` gives a site's rows at that site alone; the server then opens none. By
            default it compares what sites tell with what their loaders give, as one machine can.

    Raises:
        InputError: the strategy runs its rounds by a `start` of its own.
    """

    def __init__(
        self,
        strategy: Any,
        folder: str | Path,
        *,
        net: str,
        data: str,
        test: str | None = None,
        name: str = "model",
        recipe: Mapping[str, Any] | None = None,
        sites: Literal["own"] | None = None,
    ) -> None:
        super().__init__(strategy)
        self.adoption = Adoption(Path(folder), net, data, test or data, name, recipe or {}, sites)

    def begins(self, weights: Tensors) -> None:
        """Refuse before the first round what could not be written after the last."""
        self.adoption.check(weights)

    def ends(self, recording: Recording) -> None:
        """Write the family; where that fails, at least the weights."""
        try:
            self.adoption.write(recording)
        except Exception as error:  # a loader may raise anything
            error.add_note(f"What was trained is in {self.adoption.keep(recording)}.")
            raise


def answering(app: ClientApp, net: str, data: str, test: str | None = None, folder: str | Path = "family") -> ClientApp:
    """Have the clients of an app also answer tasks of unlearning; what it does already stays.

    A site keeps what is its own, which here are exclusions and no weights, in the folder that its node_config calls `store`.

    Args:
        app: the app; its site's name is the node_config's `site`, or `site-<partition-id>`, as for `tell`.
        net: "their.module:make_net", the one that `Recorded` has.
        data: "their.module:load_site", the same.
        test: the same; by default `data`.
        folder: where sites whose node_config names no `store` keep theirs: in `<folder>/homes/<site>`.

    Returns:
        The same app.
    """
    known: dict[str, Site] = {}  # no functools.cache: a simulation pickles the app, by what its functions close over
    here = Path(folder).absolute()

    def site(context: Context) -> Site:
        name = site_of(context)
        if name not in known:
            store = Path(str(context.node_config.get("store", here / "homes" / name))).absolute()
            own = Own(factory=data, test=test or data, calibration=0, held_out=0)
            known[name] = Site(SiteFile(name=name, store=".", data=own, net={"factory": net}), store / "site.yaml")
        return known[name]

    return add_handlers(app, site)


def forgetting(app: ServerApp, folder: str | Path, *, deadline: float = 1800.0, join: float = 120.0) -> ServerApp:
    """Have an app's server also make its family forget, when a run's config says so under `fedunlearn`.

    The words are an action and its settings, for example "unlearn classes=0", "unlearn sites=site-1 method=logit_mask" or
    "rollback lift-exclusion=true" (see `deployed.order.Order`). Without any the app does what it always does.

    What cannot be done is said in the run's log, and the run fails.

    Args:
        app: the app; `main` and `lifespan` are its own.
        folder: of the family, the one that `Recorded` has.
        deadline: seconds that one round of messages may take.
        join: seconds to wait for the sites.
    """
    return _Forgetting(app, Path(folder), {"deadline": deadline, "join": join})


class _Forgetting(ServerApp):
    def __init__(self, inside: ServerApp, folder: Path, patience: Mapping[str, float]) -> None:
        super().__init__()
        self._inside, self._folder, self._patience = inside, folder, patience

    def main(self) -> Callable[[Any], Any]:
        return self._inside.main()

    def lifespan(self) -> Callable[[Any], Any]:
        return self._inside.lifespan()

    def __call__(self, grid: Grid, context: Context) -> None:
        words = context.run_config.get(KEY, "")
        if not words:
            self._inside(grid, context)
            return
        try:
            self._obey(str(words), grid)
        except FedUnlearnError as error:
            raise refused(error) from None

    def _obey(self, words: str, grid: Grid) -> None:
        folder = self._folder.absolute()
        order = Order.of({**_read(words), "family": folder.name, **self._patience})
        backend = Flower(grid, deadline=order.deadline, join=order.join)
        answer = carry_out(order, folder.parent, backend, backend.wait, say)
        facts = answer.get("record", {}).get("facts", {})
        for model in facts.get("models", []):
            before, after = ((model[f"forgotten_{when}"], model[f"retained_{when}"]) for when in ("before", "after"))
            say(f"{model['name']}: {model['status']}; forgotten, rest: {before} -> {after} (fractions of test rows)")
        for objection in facts.get("objections", []):
            say(f"{objection['model']}: {objection['text']}")
        held_back = facts.get("objections") and "not every model was accepted, see above"
        say(f"{order.action}: {held_back or 'done'}; the family is in {folder}")


def _read(words: str) -> dict[str, str | bool | int | float]:
    """An action and `key=value` pairs, each of the kind that an order takes."""
    try:
        action, *rest = shlex.split(words)
    except ValueError as error:  # nothing but blanks, or a quotation that does not end
        raise InputError(f"{KEY} = {words!r}: {error}; expected an action and key=value pairs") from None
    found: dict[str, str | bool | int | float] = {"action": action}
    known = Order(family="x").config
    for pair in rest:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"{KEY} = {words!r}: {pair!r}: expected key=value with one of {', '.join(known)}")
        if key not in known:
            raise unknown("key", key, known, where=f"{KEY} = {words!r}")
        kind = type(known[key])
        try:
            found[key] = {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (KeyError, ValueError):
            like = "true or false" if kind is bool else f"a number like {known[key]}"
            raise InputError(f"{KEY} = {words!r}: {pair!r}: expected {like}") from None
    return found
