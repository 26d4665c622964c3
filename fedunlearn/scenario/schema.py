"""The topology YAML as a schema. What a reader of the file sees is all there is: no includes, no interpolation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request


def _texts(value: Any) -> Any:
    return [str(x) for x in value] if isinstance(value, list | tuple) else value


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({v for v in value if value.count(v) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there more than once")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # of a model or a place; it becomes part of paths
Names = Annotated[tuple[str, ...], BeforeValidator(_texts), AfterValidator(_once)]
Places = Annotated[tuple[Name, ...], BeforeValidator(_texts), AfterValidator(_once)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Data(_Strict):
    """Where rows come from and who gets which.

    Either `set` (a name, or the path of an .npz file, dealt to the sites), or `factory` (the user's `their.module:load_site`,
    called with each site's name; then the rows are the sites' own).
    """

    set: str | None = None
    factory: str | None = None
    test: str | None = Field(None, description="an .npz file or a factory of held-out rows that every home may use")
    shards: Literal["iid", "by_label", "dirichlet"] = "iid"
    concentration: float = Field(0.5, gt=0, description="of the Dirichlet distribution")
    seed: int = Field(7, ge=0)
    without: dict[str, Names] = Field(default_factory=dict, description="site -> classes that it does not get")
    calibration: float = Field(0.2, ge=0, lt=1, description="fraction held out to choose strengths on")
    held_out: float = Field(0.3, ge=0, lt=1, description="fraction held out for the gate to test on")

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if (self.set is None) == (self.factory is None):
            raise ValueError("give either set or factory")
        if self.calibration + self.held_out >= 1:
            raise ValueError("calibration and held_out leave nothing to train on; together they must stay below 1")
        return self


class _Born(_Strict):
    source: Names = Field((), alias="from")
    home: Name | None = None
    epochs: int | None = Field(None, ge=1, description="by default 4 from scratch, 2 from parents")
    lr: float | None = Field(None, gt=0, description="by default 0.1 from scratch, 0.02 from parents")
    batch: int = Field(32, ge=1)

    @property
    def settings(self) -> tuple[int, float]:
        """Epochs and learning rate, defaults filled in: fine-tuning is gentler than a start from scratch."""
        return self.epochs or (2 if self.source else 4), self.lr or (0.02 if self.source else 0.1)


class Federated(_Born):
    """Rounds of local training and averaging."""

    born: Literal["federated"]
    clients: Places = Field(min_length=1)
    rounds: int = Field(1, ge=1)

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
    ranks: Places = Field(min_length=1)

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose data trains it."""
        return self.ranks

    @property
    def place(self) -> str:
        """Who holds it; by default the first rank."""
        return self.home or self.ranks[0]


class _AtSite(_Born):
    site: Name

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose data trains it."""
        return (self.site,)

    @property
    def place(self) -> str:
        """Who holds it."""
        return self.home or self.site


class Incremental(_AtSite):
    """One site trains a model on (or, without `from`, a first one)."""

    born: Literal["incremental"]


class Transfer(_AtSite):
    """A new head on a frozen backbone."""

    born: Literal["transfer"]
    source: Names = Field(alias="from", min_length=1)
    head: Names = Field(min_length=1)


Birth = Annotated[Federated | Distributed | Incremental | Transfer, Field(discriminator="born")]


class Asked(_Strict):
    """A request, written down beforehand under a name."""

    classes: Names = ()
    samples: Names = ()
    sites: Names = ()
    since: str | None = None
    received: str | None = None
    due: str | None = None

    def request(self, name: str) -> Request:
        """As the lineage takes it."""
        return Request(self.classes, self.samples, self.sites, self.since, name, self.received, self.due)


class Limits(_Strict):
    """The gate's limits, as fractions."""

    forgotten_at_most: float = Field(0.05, ge=0, le=1)
    retained_drop_at_most: float = Field(0.05, ge=0, le=1)
    distance_to_retrained_at_most: float = Field(0.10, ge=0, le=1)

    @property
    def gate(self) -> Gate:
        """As the evaluation takes it."""
        return Gate(**self.model_dump())


class Scenario(_Strict):
    """A family to be trained, and requests and limits that go with it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int = Field(0, ge=0, description="of initial weights and the order of rows; data.seed deals the rows")
    data: Data
    net: dict[str, Any]
    models: dict[Name, Birth] = Field(min_length=1)
    folder: str = Field(
        "", description="where the file lay: paths and factories are looked up there; filled in when it is read"
    )
    requests: dict[str, Asked] = Field(default_factory=dict)
    gate: Limits = Limits()

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site that trains a model, in the order of the file."""
        return tuple(dict.fromkeys(s for m in self.models.values() for s in m.sites))

    @property
    def places(self) -> tuple[str, ...]:
        """Sites, and homes that hold no data."""
        return tuple(dict.fromkeys([*self.sites, *(m.place for m in self.models.values())]))

    @property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """What each model starts from."""
        return {name: m.source for name, m in self.models.items()}
