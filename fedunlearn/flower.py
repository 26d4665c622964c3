"""For apps written for Flower: two names that make an app's federation a family. Needs `pip install "fedunlearn[flower]"`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedunlearn.scenario.adopt import Adoption
from fedunlearn.tensors import Tensors
from fedunlearn.training.flower import Recorder, tell
from fedunlearn.training.recording import Recording

__all__ = ["Recorded", "tell"]


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
    ) -> None:
        super().__init__(strategy)
        self.adoption = Adoption(Path(folder), net, data, test or data, name, recipe or {})

    def begins(self, weights: Tensors) -> None:
        """Refuse before the first round what could not be written after the last."""
        self.adoption.check(weights)

    def ends(self, recording: Recording) -> None:
        """Write the family."""
        self.adoption.write(recording)
