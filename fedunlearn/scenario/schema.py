"""The topology YAML as a schema. What a reader of the file sees is all there is: no includes, no interpolation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request
from fedunlearn.scenario.sources import (
    MAIN,
    Data as Data,
    Name,
    Names,
    Places,
    Sending,
    Strict,
    further,
    matching as matching,
)


class Every(Strict):
    """Keep the global model of every n-th round, and the last."""

    every: int = Field(description="keep each so many-th round")


TRAINING = ("epochs", "lr", "batch", "precision", "schedule")


class _Born(Strict):
    source: Names = Field((), alias="from", description="models that it starts from; several are averaged")
    home: Name | None = Field(None, description="who keeps its weights, if not whoever trains it")
    head: Names = Field((), description="names of its outputs, for a model without parents; by default all classes of its data")
    data: Name = Field(MAIN, description="which set: main is the one under `data`, others stand under `more`")
    classes: Names = Field((), description="train on rows of these classes only; by default on all that it has an output for")
    net: Name | None = Field(None, description="one of `nets`; by default the parents', or the family's `net`")
    epochs: int | None = Field(None, ge=1, description="by default 4 from scratch, 2 from parents")
    lr: float | None = Field(None, gt=0, description="by default 0.1 from scratch, 0.02 from parents")
    batch: int = Field(32, ge=1, description="rows a step")
    precision: Literal["float32", "bf16"] = Field("float32", description="of the training; weights stay float32")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate: constant, or falling to zero"
    )

    @property
    def settings(self) -> tuple[int, float]:
        """Epochs and learning rate, defaults filled in: fine-tuning is gentler than a start from scratch."""
        return self.epochs or (2 if self.source else 4), self.lr or (0.02 if self.source else 0.1)


class Federated(_Born):
    """Rounds of local training and averaging."""

    born: Literal["federated"]
    clients: Places = Field(min_length=1, description="sites that train in every round")
    rounds: int = Field(1, ge=1, description="of training and averaging")
    strategy: str = Field("fedavg", description="how the server steps: fedavg or fedadam")
    keep: str | Every = Field("last", description="which checkpoints stay: last, all, or every: n")

    @property
    def policy(self) -> str | dict[str, int]:
        """As the training takes it."""
        return self.keep if isinstance(self.keep, str) else {"every": self.keep.every}

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose data trains it."""
        return self.clients

    @property
    def place(self) -> str:
        """Who holds it."""
        return self.home or "server"


class Distributed(_Born):
    """Ranks with disjoint shards, averaged gradients."""

    born: Literal["distributed"]
    ranks: Places = Field(min_length=1, description="sites, one process each; the first keeps the weights")

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose data trains it."""
        return self.ranks

    @property
    def place(self) -> str:
        """Who holds it; by default the first rank."""
        return self.home or self.ranks[0]


class _AtSite(_Born):
    site: Name = Field(description="trains it, and keeps its weights")

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose data trains it."""
        return (self.site,)

    @property
    def place(self) -> str:
        """Who holds it."""
        return self.home or self.site


class Incremental(_AtSite):
    """One site trains a model on (or, without `from`, a first one), perhaps with more outputs than before."""

    born: Literal["incremental"]
    adds: Names = Field((), description="classes that the head grows by; the rows it had stay")
    replay: int = Field(0, ge=0, description="rows a class, of classes that it is not trained on, trained on again")
    ewc: float = Field(0.0, ge=0, description="strength of elastic weight consolidation towards what it started from")


class Transfer(_AtSite):
    """A new head on a borrowed backbone, frozen or not."""

    born: Literal["transfer"]
    source: Names = Field(alias="from", min_length=1, description="models whose backbones it borrows; several are averaged")
    head: Names = Field(min_length=1, description="names of its outputs")
    layers: Literal["head", "all"] = Field("head", description="what is trained: the head on a frozen backbone, or all")


class Imported(_Born):
    """A checkpoint that was trained elsewhere."""

    born: Literal["imported"]
    file: str = Field(description="safetensors, or a state_dict that torch saved")
    how: Literal["federated", "distributed", "incremental", "transfer"] = Field(
        "incremental", description="how it was born where it was trained"
    )
    head: Names = Field(min_length=1, description="names of its outputs, in their order")
    site: Name | None = Field(None, description="who holds the rows that trained it; nobody here where it is left out")
    sites_: Places = Field((), alias="sites", description="the same, for several")

    @model_validator(mode="after")
    def _one_word(self) -> "Imported":
        if self.site and self.sites_:
            raise ValueError("give site or sites, not both")
        if said := [k for k in TRAINING if getattr(self, k) != _Born.model_fields[k].default]:
            raise ValueError(f"{said[0]} is of a training, and what has a file is not trained here; leave it out")
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose data trained it."""
        return self.sites_ or ((self.site,) if self.site else ())

    @property
    def place(self) -> str:
        """Who holds it."""
        return self.home or (self.sites[0] if self.sites else "server")


Birth = Annotated[Federated | Distributed | Incremental | Transfer | Imported, Field(discriminator="born")]


class Asked(Strict):
    """A request, written down beforehand under a name."""

    classes: Names = Field((), description="to be forgotten, at `sites` or everywhere")
    samples: Names = Field((), description="site/set/key each, instead of classes")
    sites: Names = Field((), description="whose rows only; alone, all that they gave")
    since: str | None = Field(None, description="a model: only what entered training after it")
    received: str | None = Field(None, description="date that it came in, YYYY-MM-DD; by default when it is carried out")
    due: str | None = Field(None, description="date by which it must be done")

    def request(self, name: str) -> Request:
        """As the lineage takes it."""
        return Request(self.classes, self.samples, self.sites, self.since, name, self.received, self.due)


class Bound(Strict):
    """Limits on one metric."""

    at_most: float | None = Field(None, description="the highest value that passes")
    at_least: float | None = Field(None, description="the lowest")


class Limits(Strict):
    """The gate's limits: fractions, and metrics by the way to a number, such as `tow.after: {at_least: 0.9}`."""

    forgotten_at_most: float = Field(0.05, ge=0, le=1, description="share of a class still recognised, where it must be absent")
    retained_drop_at_most: float = Field(0.05, ge=0, le=1, description="accuracy lost on the rest")
    distance_to_retrained_at_most: float = Field(0.10, ge=0, le=1, description="from a retrained model, where that is the aim")
    metrics: dict[str, Bound] = Field(default_factory=dict, description="any other metric, by the way to its number -> limits")
    score_at_roots: bool = Field(
        False, description="score candidates whose home has no test rows at sites that trained on the data; weights travel"
    )

    @property
    def gate(self) -> Gate:
        """As the evaluation takes it."""
        return Gate(**self.model_dump(exclude_none=True))


class Scenario(Strict):
    """A family to be trained, and requests and limits that go with it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="of the family; its folder under runs/")
    seed: int = Field(0, ge=0, description="of initial weights and the order of rows; data.seed deals the rows")
    data: Data = Field(description="the set that sites train on")
    more: Annotated[dict[Name, Data], AfterValidator(further)] = Field(
        default_factory=dict, description="further sets, for models that name them"
    )
    net: dict[str, Any] = Field(description="the architecture: name or factory, and its settings")
    nets: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="further architectures, for models that name them"
    )
    models: dict[Name, Birth] = Field(min_length=1, description="name -> how it is born")
    evidence: dict[str, Sending] = Field(
        default_factory=dict, description="site (or a pattern) -> what it does to evidence before it is sent"
    )
    folder: str = Field(
        "", description="where the file lay: paths and factories are looked up there; filled in when it is read"
    )
    requests: dict[str, Asked] = Field(default_factory=dict, description="name -> what may be asked by that name")
    gate: Limits = Field(Limits(), description="what an edited model must hold to be accepted")

    @model_validator(mode="after")
    def _says_it_itself(self) -> "Scenario":
        if self.own and self.evidence:
            raise ValueError("evidence does not go with sites: own (each site says it in its own site.yaml); leave it out")
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site that trains a model, in the order of the file."""
        return tuple(dict.fromkeys(s for m in self.models.values() for s in m.sites))

    @property
    def own(self) -> bool:
        """Whether sites open their own rows, out of reach of whoever has this file."""
        return any(d.sites == "own" for d in self.sets.values())

    def seeded(self, seed: int) -> "Scenario":
        """With another seed, which deals the rows of every set; where sites hold their own, there may be nothing to deal."""

        def dealt(data: Data) -> Data:
            return data if data.sites == "own" and data.test is None else data.model_copy(update={"seed": seed})

        more = {name: dealt(data) for name, data in self.more.items()}
        return self.model_copy(update={"seed": seed, "data": dealt(self.data), "more": more})

    @property
    def sets(self) -> Mapping[str, Data]:
        """Every set by name; each site's rows of one are the shard of that name."""
        return {MAIN: self.data, **self.more}

    def sites_of(self, data: str) -> tuple[str, ...]:
        """The sites that train a model on a set, in the order of the file."""
        return tuple(dict.fromkeys(s for m in self.models.values() if m.data == data for s in m.sites))

    def net_of(self, name: str) -> str:
        """Which of `nets` a model has: its own, or its parents'; empty for the family's `net`."""
        spec = self.models[name]
        while spec.net is None and spec.source:
            spec = self.models[spec.source[0]]
        return spec.net or ""

    def outputs(self, name: str) -> tuple[str | None, tuple[str, ...]]:
        """The head of a model: all classes of a set (or of none), and the names after them."""
        spec, added = self.models[name], list[Names]()
        while spec.source and not (isinstance(spec, Transfer | Imported) or spec.head):
            added.append(spec.adds if isinstance(spec, Incremental) else ())
            spec = self.models[spec.source[0]]
        named = isinstance(spec, Transfer | Imported) or bool(spec.head)
        grown = tuple(c for adds in reversed(added) for c in adds)
        return (None, spec.head + grown) if named else (spec.data, grown)

    @property
    def places(self) -> tuple[str, ...]:
        """Sites, and homes that hold no data."""
        return tuple(dict.fromkeys([*self.sites, *(m.place for m in self.models.values())]))

    @property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """What each model starts from."""
        return {name: m.source for name, m in self.models.items()}
