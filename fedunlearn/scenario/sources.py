"""The part of the topology that says where rows come from, and the kinds of value that all parts are made of."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedunlearn.errors import InputError
from fedunlearn.runtime.place.guard import Guard

Value = TypeVar("Value")
MAIN = "main"  # the set under `data`; a site's rows of a set are the shard of that name


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


def further(sets: dict[str, Value]) -> dict[str, Value]:
    """Sets beside the main one, whose name none of them takes."""
    if MAIN in sets:
        raise ValueError(f"{MAIN} is the name of the set under `data`; give this one another")
    return sets


class Strict(BaseModel):
    """What is not in the schema is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Opening(Strict):
    """How rows are opened, and how some are held out: what a topology and a site's own file say alike."""

    set: str | None = Field(None, description="a set by name, torchvision's among them, or a file or folder")
    factory: str | None = Field(None, description="yours.module:function, which gives rows")
    test: str | None = Field(None, description="a set, a file or a factory of held-out rows that every home may use")
    seed: int = Field(7, ge=0, description="deals the rows, and holds some out")
    calibration: float = Field(0.2, ge=0, lt=1, description="fraction held out to choose strengths on")
    held_out: float = Field(0.3, ge=0, lt=1, description="fraction held out for the gate to test on")
    download: bool | None = Field(None, description="let torchvision fetch a set that is not in the data folder")
    size: int | None = Field(None, ge=8, description="images of a folder are resized to size x size")
    tokens: int | None = Field(None, ge=1, description="tokens a text, cut or padded")
    vocabulary: int | None = Field(None, ge=2, description="how many numbers tokens are hashed to")
    scale: float | None = Field(None, gt=0, description="inputs are divided by it")
    limit: int | None = Field(None, ge=1, description="only so many rows of each class")
    test_limit: int | None = Field(None, ge=1, description="the same, for `test`")

    @property
    def options(self) -> dict[str, Any]:
        """How a set is opened, as far as the file says."""
        given = {k: getattr(self, k) for k in ("download", "size", "tokens", "vocabulary", "scale", "limit")}
        return {k: v for k, v in given.items() if v is not None}

    @property
    def test_options(self) -> dict[str, Any]:
        """How `test` is opened."""
        rest = {k: v for k, v in self.options.items() if k != "limit"}
        return rest if self.test_limit is None else {**rest, "limit": self.test_limit}

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.calibration + self.held_out >= 1:
            raise ValueError("calibration and held_out leave nothing to train on; together they must stay below 1")
        return self


class Sending(Strict):
    """What a site does to evidence before it is sent; see `fedunlearn.runtime.place.guard`."""

    at_least: int = Field(0, ge=0, description="evidence over fewer rows is refused")
    clip: float | None = Field(None, description="the most that a row's gradient counts for; by default all of it")
    noise: float = Field(0.0, description="standard deviation of the noise on a sum, over what one row may add at most")

    @model_validator(mode="after")
    def _right(self) -> Self:
        try:
            _ = self.guard
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def guard(self) -> Guard:
        """As the worker takes it."""
        return Guard(self.at_least, self.clip, self.noise)


class Data(Opening):
    """Where rows come from and who gets which.

    One of `set` (a name, or the path of an .npz file, dealt to the sites), `factory` (the user's `their.module:load_site`,
    called with each site's name; then the rows are the sites' own), and `sites: own` (each site opens its own, where it is;
    whoever has this file sees none of it).
    """

    sites: Literal["own"] | None = Field(None, description="own: each site opens its own rows, elsewhere; instead of a set")
    shards: Literal["iid", "by_label", "dirichlet"] = Field("iid", description="how rows are dealt to sites")
    concentration: float = Field(0.5, gt=0, description="of the Dirichlet distribution")
    without: dict[str, Names] = Field(default_factory=dict, description="site (or a pattern, rank-*) -> classes that it lacks")
    only: dict[str, Names] = Field(default_factory=dict, description="site (or a pattern) -> the only classes that it gets")
    share: dict[str, float] = Field(default_factory=dict, description="site (or a pattern) -> how much it gets, 1 by default")

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if [self.set, self.factory, self.sites].count(None) != 2:
            raise ValueError("give one of set, factory and sites: own")
        if self.sites:
            _refuse_for_own(self)
        return self


def _refuse_for_own(data: Data) -> None:
    """What a site's own rows are, only the site can say; what is said of `test` needs a test set."""
    dealing = {"without", "only", "share", "shards", "concentration", "calibration", "held_out", "limit"}
    testing = {"seed", "download", "size", "tokens", "scale", "test_limit"} if data.test is None else set()
    fields = type(data).model_fields
    for name in fields:
        if name in dealing | testing and getattr(data, name) != fields[name].get_default(call_default_factory=True):
            why = "each site says it of its own rows" if name in dealing else "it is about `test`, and there is none"
            raise ValueError(f"{name} does not go with sites: own ({why}); leave it out")


def matching(table: Mapping[str, Value], site: str) -> Value | None:
    """What a table of sites and patterns (`rank-*`) says of one site: its own entry, else the first pattern that fits."""
    if site in table:
        return table[site]
    return next((v for pattern, v in table.items() if fnmatchcase(site, pattern)), None)
