"""Banking: importances by class, measured ahead of any request, at the sites that hold the data."""

from fedunlearn.lineage import Request, discover
from fedunlearn.runtime.backend import Backend, Progress, ask
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import fetch
from fedunlearn.runtime.settle import alone
from fedunlearn.runtime.tasks import Deposit, Deposited


def bank(family: Family, backend: Backend, *, progress: Progress = lambda _: None) -> int:
    """Bank whatever a request for classes could ask for: every kept model on its own shards, and at every evidence point.

    F_forget of a class is then its banked sum, F_all the sum over classes, F_retain = F_all - F_forget, with no row read.
    Class sums of versions that have changed since are measured anew; the others are left as they are.

    Args:
        family: the family.
        backend: carries tasks to the sites.
        progress: told, in words, what is being done.

    Returns:
        How many rows were read.

    Raises:
        SiteError: a site failed; what others banked stays.
    """
    with alone(family, backend), backend.telling(progress):
        progress("measuring every kept model, class by class, at the sites that may be asked")
        return _bank(family, backend)


def _bank(family: Family, backend: Backend) -> int:
    lineage, heads = family.lineage, family.heads
    pairs = {(m.name, s.site, s.key) for m in lineage.models if m.kept for s in lineage.weighing(m.name)}
    for name in lineage.classes:
        pairs |= {(p.model, p.site, p.shard) for p in discover(lineage, Request(classes=(name,))).points}
    away = {(m, heads[m]) for m, site, _ in pairs if lineage[m].home != site}
    fetched = fetch(family, away, backend, Roll(family.places))
    tasks = []
    for model, site, shard in sorted(pairs):
        sent = fetched[model, heads[model]] if lineage[model].home != site else None
        tasks.append(Deposit(site, heads[model], shard.split("/", 1)[1], sent))
    return sum(answer.read for answer in ask(backend, tasks, Deposited, otherwise="what others banked stays"))
