"""A site's own file, `site.yaml`: what its owner lets others ask for, and out of which rows, nets and store it is answered.

Nothing of this comes in a message. Messages name a net, a shard and a method; here it says what these names mean. Long because
what the file may say, how it is opened and what is answered out of it are read together.
"""

import os
import re
import sys
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from torch import nn

from fedunlearn.data import MIRROR, Exclusions, Rows, SiteData, find, held_out, open_site as load_rows
from fedunlearn.data.register import lost
from fedunlearn.data.rows import joined
from fedunlearn.dotted import importable
from fedunlearn.errors import FedUnlearnError, InputError, SiteError, StoreError, unknown
from fedunlearn.methods import make
from fedunlearn.nets import build
from fedunlearn.runtime import Worker
from fedunlearn.runtime.place.check import CONSENT, ERROR
from fedunlearn.runtime.place.consent import Consent
from fedunlearn.runtime.place.mirror import Excluded, excluded_by_others
from fedunlearn.runtime.tasks import Answer, Commit, Seal, Survey, Task, Train
from fedunlearn.scenario.build import Seen, among, shared_test, union
from fedunlearn.scenario.files import read_plain
from fedunlearn.scenario.nets import net_spec
from fedunlearn.scenario.registers import Registers
from fedunlearn.scenario.schema_errors import said
from fedunlearn.scenario.sources import MAIN, Name, Opening, Sending, Strict, further
from fedunlearn.scenario.workers import best_device
from fedunlearn.store import Store, write_atomically

SITES = "FEDUNLEARN_SITES"  # the folder with this machine's <site>/site.yaml, where it is not where others think
FILE = "site.yaml"
METHOD = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Own(Opening):
    """Where a site's rows of one set come from.

    One of `set` (a name or a file), `factory` (called with the site's name) and `folder` (of .npz files, one a shard).
    """

    folder: str | None = Field(None, description="of .npz files; each is the shard of its name")

    @model_validator(mode="after")
    def _one_source(self) -> "Own":
        if [self.set, self.factory, self.folder].count(None) != 2:
            raise ValueError("give one of set, factory and folder")
        return self


class SiteFile(Strict):
    """What stands in a `site.yaml`. Relative paths are looked up beside the file."""

    name: Name
    store: str = Field("store", description="folder for versions of models, what was banked, and what waits for the owner")
    data: Own = Field(description="the rows of the family's main set")
    more: Annotated[dict[Name, Own], AfterValidator(further)] = Field(
        default_factory=dict, description="rows of further sets, by the names that topologies give them"
    )
    net: dict[str, Any] = Field(description="as in the topology")
    nets: dict[Name, dict[str, Any]] = Field(default_factory=dict, description="as in the topology")
    device: str | None = Field(None, description="where to compute; by default the GPU where there is one")
    methods: tuple[str, ...] = Field((), description="methods that may be used here beyond the menu, each their.module:Class")
    policy: Literal["auto", "ask"] = Field("auto", description="ask: the owner allows each task before it is done")

    evidence: Sending = Field(Sending(), description="what is done to evidence before it is sent")

    @model_validator(mode="after")
    def _whole(self) -> "SiteFile":
        wrong = [m for m in self.methods if not METHOD.fullmatch(m)]
        if wrong:
            raise ValueError(f"method {wrong[0]!r}: expected their.module:Class")
        if self.more and self.data.folder:
            raise ValueError("a folder of shards under `data` names all sets; leave out `more`, or give data.set")
        if any(own.folder for own in self.more.values()):
            raise ValueError("a folder of shards stands under `data` only; give a set or a file for each of `more`")
        return self


@dataclass(frozen=True)
class Site:
    """A site, opened when it is first asked something, so that what is wrong with its rows is its answer.

    Args:
        file: what its owner wrote.
        path: where that stands.
    """

    file: SiteFile
    path: Path

    @property
    def place(self) -> str:
        """Its name."""
        return self.file.name

    @property
    def methods(self) -> Collection[str]:
        """What its owner allows beyond the menu."""
        return self.file.methods

    @property
    def folder(self) -> Path:
        """Of its store."""
        return self.path.parent / Path(self.file.store).expanduser()

    @property
    def consent(self) -> Consent:
        """What was asked for, and what is allowed."""
        return Consent(self.folder / CONSENT)

    @cached_property
    def answerer(self) -> Worker:
        """What answers tasks here.

        Raises:
            InputError: rows cannot be opened or a net cannot be made.
            StoreError: a register of rows is lost or damaged.
        """
        if told := lost(self.folder):
            raise StoreError(told[0])
        registers = self._registers
        shards, held = _opened(self.file, str(self.path.parent), registers)
        first = next(iter(shards.values()))
        shape = tuple(first.x.shape[1:])
        file, vocabulary = self.file, self.file.data.vocabulary

        def make_net(outputs: int, net: str, seed: int = 0) -> nn.Module:
            return build(net_spec(file.net, file.nets, vocabulary, net), shape, outputs, seed)

        make_net(len(first.classes), "")  # what cannot be made is said before anything is measured
        store = Store(self.folder)
        gone = {name: registers.gone(name) for name in shards}
        data = SiteData(self.place, shards, held, partial(Exclusions.read, store.folder / MIRROR), gone)
        device, guard = file.device or best_device(), file.evidence.guard
        others = partial(excluded_by_others, store, "")  # of a task that names no family, too
        return Worker(self.place, store, data, make_net, device, methods=file.methods, others=others, guard=guard)

    def check(self) -> Worker:
        """Open everything that `site.yaml` names, as the first task would.

        Raises:
            InputError: rows, a net, the device or a method cannot be had; says why.
            StoreError: a register of rows is lost or damaged.
        """
        worker = self.answerer
        try:
            torch.zeros(1, device=worker.device)
        except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
            raise InputError(f"{self.path}: device: {worker.device!r}: {str(error).splitlines()[0]}") from error
        for net in self.file.nets:
            worker.make_net(1, net)
        for method in self.file.methods:
            make(method)
        return worker

    def handle(self, task: Task) -> Answer:
        """Do one task.

        Raises:
            SiteError: the site cannot be opened, its owner has not allowed the task, or code of the owner's own raised: what it
                said stays here.
            FedUnlearnError: it cannot be done; says why.
        """
        try:
            return self._handle(task)
        except Exception as error:
            foreign = isinstance(error, StoreError) or not isinstance(error, FedUnlearnError)
            if foreign or not isinstance(error.__cause__, FedUnlearnError | None):  # quotes what the owner's code or files say
                raise SiteError(f"could not do it: {self._kept_here(error)}") from error
            raise

    def _handle(self, task: Task) -> Answer:
        excluded = Excluded.at(Store(self.folder), task.family) if self.file.policy == "ask" else None
        if excluded is not None:
            self.consent.check(task, excluded, self._how)
        try:
            answerer = self.answerer
        except Exception as error:
            raise SiteError(f"cannot open its rows, nets or store: {self._kept_here(error)}") from None
        if isinstance(task, Survey) and not task.again:
            self._registers.check(task.shards)
        if isinstance(task, Train):
            self._hold([task.shard])  # first: rows that come meanwhile would move others
        answer = answerer.handle(task)
        if isinstance(task, Commit) and excluded is not None:
            self.consent.spend(task, excluded)
        if isinstance(task, Commit) and len(self._registers.names) == 1:  # of adopted models, or imported
            self._hold(self._registers.names)
        elif isinstance(task, Seal):
            self._erase(task)
        return answer

    def _kept_here(self, error: Exception) -> str:
        """Which error, and where its words are: a loader's may quote a row, and paths tell of the machine."""
        told = f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{''.join(traceback.format_exception(error))}"
        try:
            write_atomically(self.folder / ERROR, told.encode())
        except OSError:  # a full disk, say
            sys.stderr.write(told)
        return f"{type(error.__cause__ or error).__name__}; its words stay there (fedunlearn site show {self.path.name})"

    @property
    def error(self) -> str:
        """What went wrong last, in full; empty where nothing did."""
        file = self.folder / ERROR
        return file.read_text(errors="replace") if file.exists() else ""

    @cached_property
    def _registers(self) -> Registers:
        return Registers(self.folder)

    def _hold(self, names: Collection[str]) -> None:
        self._registers.hold(names)
        self._registers.note(names)

    def _erase(self, task: Seal) -> None:
        """What a sealed request had forgotten and the owner has taken out of the data leaves no mark."""
        for name in self._registers.names:
            gone = self._registers.stand_ins(name)
            picked = {i for chosen in task.forgotten.values() for i in chosen.picks(name, gone)}
            self._registers.erase(name, [gone.keys[i] for i in picked])

    def _how(self, wish: str) -> str:
        return f"on its own machine the owner allows it with `fedunlearn site approve {self.path.name} {wish}`; then ask again"


def open_site(path: str | Path) -> Site:
    """A site from its owner's file. Rows are opened when the first task comes.

    Args:
        path: of the `site.yaml`. Its folder goes on the import path, so that factories beside it are found.

    Raises:
        InputError: the file is missing or not YAML, or something in it is wrong.
    """
    path = Path(path).expanduser()
    plain = read_plain(path)
    if not isinstance(plain, dict):
        raise InputError(f"{path}: expected a mapping with name, store, data and net, found {type(plain).__name__}")
    try:
        file = SiteFile.model_validate(plain)
    except ValidationError as error:
        raise InputError("\n".join(said(e, str(path), _fields) for e in error.errors())) from error
    importable(str(path.resolve().parent))
    return Site(file, path.resolve())


def open_site_in(folder: str, name: str) -> Site:
    """The site of that name, from `<folder>/<name>/site.yaml` on the machine where this is called.

    Args:
        folder: as whoever asks knows it; what the environment says there (FEDUNLEARN_SITES) is taken instead.
        name: of the site.

    Raises:
        InputError: there is no such file, something in it is wrong, or it is another site's.
    """
    path = Path(os.environ.get(SITES) or folder) / name / FILE
    found = open_site(path)
    if found.place != name:
        raise InputError(f"{path}: name: {found.place!r}, expected {name!r}, as the folder is called")
    return found


def _opened(file: SiteFile, beside: str, registers: Registers) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Rows to train on of every shard, and held-out rows of all, under one list of classes."""
    sources = {MAIN: file.data, **file.more}
    if file.data.folder is not None:
        folder = find(file.data.folder, beside, "folder of shards")
        names = sorted(p.stem for p in folder.glob("*.npz")) if folder.is_dir() else []
        if not names:
            raise InputError(
                f"data.folder: {folder}: holds no .npz file; each is the shard of its name, the first set's is {MAIN}.npz"
            )
        alone = {"folder": None}
        sources = {n: file.data.model_copy(update={**alone, "set": str(folder / f"{n}.npz")}) for n in names}
        if MAIN not in sources:
            raise unknown("shard", MAIN, names, where=f"data.folder: {folder}")
    shards: dict[str, Rows] = {}
    held: dict[str, dict[str, Rows]] = {}
    for name, own in sources.items():
        rows = (
            registers.recall(name, load_rows(own.factory, file.name, beside))
            if own.factory
            else registers.open(name, own, beside)
        )
        fractions = (own.calibration, own.held_out) if own.test is None else (0.0, 0.0)
        parts = held_out(rows, *fractions, own.seed)
        shards[name], calibration, test = (registers.present(name, part) for part in parts)
        held[name] = (
            {"calibration": calibration, "test": test} if own.test is None else shared_test(own, beside, [shards[name]])
        )
    seen: dict[str, Seen] = {name: (rows.classes, tuple(rows.x.shape[1:])) for name, rows in shards.items()}
    classes, several = union(seen), len(sources) > 1
    splits = {
        split: joined([among(parts[split], classes, name if several else "") for name, parts in held.items()])
        for split in ("calibration", "test")
    }
    return shards, splits


def _fields(keys: list[str]) -> list[str]:
    """Right keys at the place of a wrong one."""
    parts: dict[str, type[BaseModel]] = {"data": Own, "more": Own, "evidence": Sending}
    kind = parts.get(keys[0], SiteFile) if len(keys) > 1 else SiteFile
    return sorted({field.alias or name for name, field in kind.model_fields.items()})
