"""What may be wrong with rows, and with models that came with weights of their own, as far as rows here can show it."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from fedunlearn.data import SiteData
from fedunlearn.errors import few
from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.nets import MakeNet, load
from fedunlearn.runtime import Family
from fedunlearn.scenario.build import open_data
from fedunlearn.scenario.files import of_family
from fedunlearn.scenario.nets import net_maker
from fedunlearn.scenario.overlap import told_seen
from fedunlearn.scenario.schema import Imported
from fedunlearn.scenario.workers import best_device
from fedunlearn.scores import KNOWN

LOOKED_AT = 50  # rows of each class


def doubts(family: Family, names: Collection[str]) -> list[str]:
    """What to look at before a request is asked for, in words.

    Args:
        family: the family.
        names: of its models; of these, only those that came with their weights are looked at.

    Returns:
        A sentence each: outputs that no recorded row has taught, names that a transfer shares with its parent, classes that a
        model does not recognise on the very rows that are said to have trained it, rows that are held out by chance. Of every
        family whose rows are here: held-out rows that are trained on.
    """
    scenario = of_family(family)
    imported = {n: m for n in names if isinstance(m := scenario.models.get(n), Imported)}
    if scenario.own:  # their rows are theirs, and cannot be looked at here
        return []
    opened = open_data(scenario, family.folder, {*family.departed})
    said, data = told_seen(opened), opened.places
    if not imported:
        return said
    known = dict.fromkeys(c for d in data.values() for rows in (*d.shards.values(), *d.held_out.values()) for c in rows.classes)
    make = net_maker(scenario, data)
    for name, spec in imported.items():
        if strange := family.lineage.untaught(name):
            no_class = [c for c in strange if c not in known]
            close = next((n for c in no_class for n in get_close_matches(c, known, n=1, cutoff=0.5)), "")
            said.append(
                f"{name}: no recorded row taught its outputs {few(map(repr, strange))}, so that no request for them "
                "reaches it; "
                + (f"no set here has a class {no_class[0]!r}" if no_class else "say whose rows did (`site:`)")
                + (f", did you mean {close!r}?" if close else "")
            )
        taken = set(spec.head) & {c for p in spec.source for c in family.lineage[p].head}
        if spec.how == "transfer" and not spec.sites and taken:
            said.append(
                f"{name}: outputs {few(map(repr, sorted(taken)))} of its new head are called like its parent's; a class has "
                f"one name in a family, so a request for it is about both: rename them under `head` if they mean something else"
            )
        said += _unknown(family, name, data, make)
    plain = [s for s in dict.fromkeys(m.data for m in imported.values() if m.sites) if scenario.sets[s].test is None]
    if plain:
        share = scenario.sets[plain[0]].held_out + scenario.sets[plain[0]].calibration
        said.append(
            f"of the rows of {few(map(repr, plain))}, {share:.0%} are held out, as rows that trained no model: where "
            f"{few(map(repr, imported))} were trained on all of them, name a set of other rows to test on (`test:` under "
            f"`data`); then none are held out"
        )
    return said


def _unknown(family: Family, name: str, data: Mapping[str, SiteData], make: MakeNet) -> list[str]:
    """Classes that a model does not recognise on the first of the rows that are said to have trained it."""
    model, said = family.lineage[name], []
    version = family.store(model.home).read(family.heads[name])
    net = load(make(len(model.head), model.net, 0), version.weights).to(best_device()).eval()
    for shard in (s for s in model.data if s.site in data):
        rows = data[shard.site].all(shard.name).of(tuple(shard.rows)).for_head(model.head).first(LOOKED_AT)
        shares = {c: accuracy(net, rows.of([c])) for c in rows.counts()}
        if low := [c for c, share in shares.items() if share is not None and share < KNOWN]:
            told = ", ".join(f"{100 * (shares[c] or 0.0):.0f} % of class {c}" for c in low[:3]) + " and others" * (len(low) > 3)
            said.append(
                f"{name}: of the rows of {shard.key} that are said to have trained it, it recognises {told}; are the names "
                f"under `head` in the order of its outputs, and are inputs made as they were for its training?"
            )
    return said
