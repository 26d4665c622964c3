"""What a comparison keeps while it is at work, so that one that was cut off goes on where it was.

```
<work>/<topology>-<seed>-<content>/      content: of the topology with this seed, and of its factories' text
    family/                              trained once; its retrained twins are in it
    trained.json                         seconds, where it comes from
    before/<content>.json                a request: every heir before it, and as retrained
    after/<content>.json                 a request, a method, its settings, a tier: every heir after it
```

Names are made of contents, so that nothing of another topology, other code of the user's own, other settings or another
version of this package is taken for what is asked now. What is written is whole: a file is there, or it is not.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blake3 import blake3
from filelock import FileLock, Timeout

from fedunlearn.compare.asked import Choice
from fedunlearn.compare.origin import origin
from fedunlearn.data.sets import LOADER
from fedunlearn.errors import BusyError
from fedunlearn.lineage import Request
from fedunlearn.runtime import Family
from fedunlearn.runtime.backend import Progress
from fedunlearn.scenario import Scenario, train
from fedunlearn.source import text_of
from fedunlearn.store import write_atomically

Plain = dict[str, Any]


@dataclass(frozen=True)
class Nest:
    """One family of one seed, and what is known of it.

    Args:
        folder: of its own.
        scenario: with its seed.
    """

    folder: Path
    scenario: Scenario

    @classmethod
    def of(cls, work: Path, scenario: Scenario, seed: int) -> "Nest":
        """The nest of a topology and a seed, and of the text of the factories that the topology names."""
        own = scenario.seeded(seed)
        plain, text = own.model_dump(by_alias=True, mode="json"), text_of(_modules(own))
        elsewhere = {name: asked for name, asked in own.requests.items() if not asked.samples}  # with another seed's deal
        dealt = own.model_copy(update={"requests": elsewhere})
        return cls(work / f"{scenario.name}-{seed}-{_content([plain, text] if text else plain)}", dealt)

    @property
    def family(self) -> Path:
        """Where the family is."""
        return self.folder / "family"

    @property
    def trained(self) -> Path:
        """Where it says how the family was trained."""
        return self.folder / "trained.json"

    def before(self, request: Request, reference: bool) -> Path:
        """Where heirs as they are before a request are kept."""
        return self.folder / "before" / f"{_content([_asked(request), reference])}.json"

    def after(self, request: Request, reference: bool, choice: Choice, tier: str = "") -> Path:
        """Where heirs as a method leaves them are kept, evaluated to a tier."""
        asked = [_asked(request), reference, choice.identity, *([tier] if tier else [])]
        return self.folder / "after" / f"{_content(asked)}.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else works here meanwhile.

        Raises:
            BusyError: somebody does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"{self.folder}: another comparison is at work there; wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def train(self, say: Progress) -> Plain:
        """Train the family; what a training that was cut off left is not built upon."""
        shutil.rmtree(self.family, ignore_errors=True)
        return {"models": len(train(self.scenario, self.family, progress=say).heads)}

    @contextmanager
    def copy(self) -> Iterator[Family]:
        """A copy of the family, to be changed, and gone afterwards; what is retrained for it stays with the family."""
        there, twins = self.folder / "copy", self.family / "reference"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(self.family, there, ignore=shutil.ignore_patterns("reference"))
        if twins.exists():
            (there / "reference").symlink_to(twins.resolve(), target_is_directory=True)
        try:
            yield Family.open(there)
        finally:
            shutil.rmtree(there)


def kept(path: Path, make: Callable[[], Plain]) -> Plain:
    """What a file says; or what is made now, with the seconds that took and where it comes from, and kept there.

    Args:
        path: the file.
        make: makes plain data. With a `failed` in it, it is not kept, and tried again by the next run.
    """
    if (found := read(path)) is not None:
        return found
    started = time.perf_counter()
    made = make()
    made = {"origin": origin(), **made, "wall": time.perf_counter() - started}
    if "failed" not in made:
        write_atomically(path, json.dumps(made).encode())
    return made


def read(path: Path) -> Plain | None:
    """What a file says; None if there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def _modules(scenario: Scenario) -> Iterator[str]:
    """The modules of the user's own that make a scenario's rows and nets."""
    for data in scenario.sets.values():
        loaders = (one for one in (data.set, data.test) if one is not None and LOADER.fullmatch(one))
        yield from (path.partition(":")[0] for path in (data.factory, *loaders) if path)
    for net in (scenario.net, *scenario.nets.values()):
        if factory := net.get("factory"):
            yield str(factory).partition(":")[0]


def _asked(request: Request) -> Mapping[str, Any]:
    return {k: v for k, v in request.to_json().items() if k not in ("id", "received", "due")}


def _content(plain: Any) -> str:
    text = json.dumps([version("fedunlearn"), plain], sort_keys=True)
    return blake3(text.encode()).hexdigest(8)
