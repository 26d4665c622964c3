"""What one place holds: shards to train on, held-out rows, and what it must not train on any more."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from fedunlearn.data.exclusions import Exclusions, Selection
from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError, unknown


@dataclass(frozen=True)
class SiteData:
    """The rows of one place. All training goes through `training`, which leaves out what is excluded.

    Args:
        site: its name.
        shards: shard name -> rows.
        held_out: "calibration" and "test" -> rows that nobody trained on; places without any lack the entry.
        excluded: reads what committed requests have excluded here, whenever it matters.
        gone: shard name -> keys of rows that models were trained on and that are not there any more.
    """

    site: str
    shards: Mapping[str, Rows] = field(default_factory=dict)
    held_out: Mapping[str, Rows] = field(default_factory=dict)
    excluded: Callable[[], Exclusions] = lambda: Exclusions({})
    gone: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def exclusions(self) -> Exclusions:
        """What must not be trained on here, as of now."""
        return self.excluded()

    def training(self, shard: str, classes: Collection[str] | None = None) -> Rows:
        """Rows of a shard that may be trained on, of these classes only if any are given."""
        rows = self.exclusions.keep(shard, self.all(shard))
        return rows if classes is None else rows.of(classes)

    def all(self, shard: str) -> Rows:
        """All rows of a shard, excluded ones included: for measuring, never for training.

        Raises:
            InputError: there is no such shard here.
        """
        if shard not in self.shards:
            raise unknown("shard", shard, self.shards, where=f"site {self.site!r}")
        return self.shards[shard]

    def selected(self, shard: str, selection: Selection) -> Rows:
        """The rows of a shard that a selection describes.

        Raises:
            InputError: a sample is named that the shard does not hold.
        """
        rows = self.all(shard)
        here = [s for s in selection.samples if s.split("/", 1)[0] == shard]
        known = {f"{shard}/{key}" for key in rows.keys} if here else set()
        for sample in here:
            if sample.split("/", 1)[1] in self.gone.get(shard, ()):
                raise InputError(
                    f"request: sample {self.site + '/' + sample!r} was trained on and is not in the site's data any more, so "
                    f"nothing can be measured of it; a row is to be taken out when it is forgotten and evaluated"
                )
            if sample in known:
                continue
            if split := self._holding_out(sample):
                raise InputError(
                    f"request: sample {self.site + '/' + sample!r} is held out, for {split}: no model was trained on it "
                    f"here, so there is nothing to forget, and it is used no more once it is taken out of the site's data. If "
                    f"one was, elsewhere (a file was imported), import it with rows of another set to test on (`test:`)"
                )
            raise InputError(  # names of rows may be those of people: none that was not asked for is told
                f"request: unknown sample {self.site + '/' + sample!r}; {self.site}/{shard} has {len(rows)} rows, and "
                f"their names are in its data"
            )
        if selection.samples and not here:
            raise InputError(f"site {self.site!r}: no sample of shard {shard!r} was named")
        return rows.take(selection.picks(shard, rows))

    def _holding_out(self, sample: str) -> str:
        """The split that a row of a shard is held out for; empty if it is for none."""
        names = {sample, sample.split("/", 1)[1]}  # of several sets it is called by its set, too
        return next((split for split, rows in self.held_out.items() if not names.isdisjoint(rows.keys)), "")
