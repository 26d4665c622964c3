"""Random families for Hypothesis."""

from hypothesis import strategies as st

from fedunlearn.lineage import Lineage, Model, Shard

CLASSES = ("a", "b", "c")
SITES = ("north", "south", "east")


@st.composite
def lineages(draw: st.DrawFn, most: int = 12) -> Lineage:
    models: list[Model] = []
    for i in range(draw(st.integers(1, most))):
        earlier = [m.name for m in models]
        parents = tuple(draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3))) if earlier else ()
        shards = []
        for site in draw(st.lists(st.sampled_from(SITES), unique=True, max_size=2)):
            rows = {c: draw(st.integers(0, 3)) for c in CLASSES}
            shards.append(Shard(site, "main", rows))
        head = tuple(draw(st.lists(st.sampled_from(CLASSES), unique=True, min_size=1)))
        born = draw(st.sampled_from(("incremental", "transfer") if parents else ("incremental",)))
        models.append(Model(f"m{i}", draw(st.sampled_from(SITES)), born, head, parents, tuple(shards), draw(st.booleans())))
    tests = dict.fromkeys(draw(st.lists(st.sampled_from(SITES), unique=True)), CLASSES)
    return Lineage(tuple(models), tests)
