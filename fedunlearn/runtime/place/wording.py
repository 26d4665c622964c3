"""What a task would do, in words for the owner of a place who is asked about it."""

from collections.abc import Iterable, Mapping, Sequence

from fedunlearn.data import Selection
from fedunlearn.runtime.place.mirror import UNBOUND, Excluded
from fedunlearn.runtime.tasks import Apply, Commit, Deposit, Evaluate, Fetch, Fetched, Measure, Score, Seal, Survey, Task, Train


def words(task: Task, excluded: Excluded = UNBOUND) -> str:
    """What a task would do, for the owner to read. Names in it are the coordinator's and are shown as they came, quoted."""
    does = _excludes(task, excluded) if isinstance(task, Commit) else _does(task)
    return f"for family {task.family[:12]!r}: {does}" if task.family else does


def _excludes(task: Commit, excluded: Excluded) -> str:
    """What a Commit changes."""
    before = excluded.own
    if before is None:
        return f"from now on train on all rows but {_named(task.exclusions)} (what was excluded before cannot be read)"
    new = {name: chosen for name, chosen in task.exclusions.items() if before.get(name) != chosen}
    lifted = {name: chosen for name, chosen in before.items() if task.exclusions.get(name) != chosen}
    told = (f"train no more on {_named(new)}" if new else "", f"train again on {_named(lifted)}" if lifted else "")
    return " and ".join(filter(None, told))


def _named(exclusions: Mapping[str, Selection]) -> str:
    shown = [f"{_chosen(chosen)} (request {name[:40]!r})" for name, chosen in sorted(exclusions.items())]
    return "; ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "none"


def _does(task: Task) -> str:
    match task:
        case Train():
            gives = "; its weights are sent" if task.give else "; its weights stay here, counts of the rows are sent"
            rows = f"rows of {_listed(task.classes)} in {task.shard!r}{_but(task.without.values())}"
            return f"train {task.recipe.name!r} ({task.born!r}, {task.recipe.epochs} epochs) on {rows}{gives}"
        case Measure():
            about = _chosen(task.selection) if task.selection else _listed(task.classes)
            rows = f"{about} in {task.shard!r}" + (f", but {len(task.left_out)} of these rows" if task.left_out else "")
            rows = f"at most {task.most} rows of {rows}" if task.most else rows
            along = ", which is sent along," if task.sent else ""
            return f"measure {task.statistic!r} of {_short(task.version)}{along} on {rows}; a sum a parameter is sent"
        case Deposit():
            return f"measure squares of {_short(task.version)} on all rows of {task.shard!r} and keep them; nothing is sent"
        case Apply():
            about = _listed(task.question.classes) if task.question.classes else "samples"
            return f"edit {_short(task.version)} with {task.method!r} to forget {about}; it stays here, accuracies are sent"
        case Evaluate():
            samples = sum(len(chosen.samples) for chosen in task.question.selections.values())
            rows = f"{samples} samples and other rows here" if samples else "rows here"
            how = f"on {rows}" if task.tier == "quick" else f"with short trainings on {rows}"
            how = f"with {2 * task.audit.shadows} models trained on rows here, which stay here" if task.audit else how
            beside = f", beside {len(task.retrained)} retrained, {len(task.sent)} of them sent along" if task.retrained else ""
            return (
                f"evaluate {_short(task.after)} against {_short(task.before)} ({task.tier!r}, {how}{beside}); numbers are sent"
            )
        case Score(sent=Fetched()):
            about = _listed(task.question.classes) if task.question.classes else "samples"
            return (
                f"score {_short(task.version)}, which is sent along, on held-out rows here and on {about}; accuracies are sent"
            )
        case Score():
            samples = sum(len(chosen.samples) for chosen in task.question.selections.values())
            but = sum(len(left_out) for *_, left_out in task.own_shards)
            also = f", and how many rows there are but for {but} of them" if but else ""
            return f"score {_short(task.version)} on {samples} samples; accuracies are sent{also}"
        case Survey():
            shards = ", ".join(repr(name[:40]) for name in task.shards[:12])
            return f"count rows of each class in {shards}{_but(task.without.values())}; the counts are sent"
        case Seal():
            return f"erase every version but {len(task.keep)} that are still needed, and what was banked of what is forgotten"
        case Fetch():
            return f"send the weights of {_short(task.version)}"
        case _:
            return f"{type(task).__name__} (answered without asking)"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n[:40]) for n in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"classes {shown}" if names else "all classes"


def _chosen(chosen: Selection) -> str:
    if chosen.samples:
        shown = ", ".join(repr(key[:40]) for key in chosen.samples[:3])
        return f"{len(chosen.samples)} samples ({shown}{', ...' if len(chosen.samples) > 3 else ''})"
    return _listed(chosen.classes) if chosen.classes else "all rows"


def _but(without: Iterable[Selection]) -> str:
    """What is left out of rows."""
    told = list(map(_chosen, without))
    more = f" and {len(told) - 12} more" if len(told) > 12 else ""
    return f", but {', '.join(told[:12])}{more}" if told else ""


def _short(version: str) -> str:
    return f"version {version[:12]!r}"
