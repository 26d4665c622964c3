"""What sites answer while a family is trained at them is untrusted: it is checked here before anything is made of it."""

import re
from collections.abc import Mapping

import torch
from torch import nn

from fedunlearn.errors import InputError, ShapeError, TrainingError
from fedunlearn.nets import head_of
from fedunlearn.runtime import Family
from fedunlearn.runtime.tasks import Survey, Surveyed, Train, Trained
from fedunlearn.scenario.build import Seen, agree, union
from fedunlearn.scenario.schema import Scenario
from fedunlearn.tensors import Tensors, same

VERSION = re.compile("[0-9a-f]{64}")


def sound(task: Survey, answer: Surveyed) -> Surveyed:
    """A survey that can be one.

    Raises:
        TrainingError: it is about other shards, counts what cannot be, or names classes twice.
    """
    classes, counts = answer.classes, answer.shards
    said = None
    if set(counts) != set(task.shards) or set(classes) != set(task.shards):
        said = f"told of shards {sorted(counts)}, asked were {sorted(task.shards)}"
    elif any(not named or len(set(named)) < len(named) for named in classes.values()):
        said = f"names no classes, or one twice: {dict(classes)}"
    elif any(c not in classes[shard] for shard, rows in counts.items() for c in rows):
        said = "counts rows of classes that it does not name"
    elif min((n for rows in (*counts.values(), answer.tests) for n in rows.values()), default=0) < 0:
        said = "counts less than no rows"
    elif answer.withheld.keys() - set(task.shards) or min(answer.withheld.values(), default=1) < 1:
        said = f"leaves out rows of shards that it was not asked about, or less than one: {dict(answer.withheld)}"
    elif bool(task.shards) != bool(answer.shape) or min(answer.shape, default=1) < 1:
        said = f"says that inputs have shape {answer.shape}"
    if said:
        raise TrainingError(f"{task.place}: its survey {said}; nothing was trained: mend the site, then train again")
    return answer


def agreed(scenario: Scenario, surveys: Mapping[str, Surveyed]) -> tuple[dict[str, tuple[str, ...]], tuple[int, ...]]:
    """The classes of every set and the shape of one input, which all sites must agree on.

    Raises:
        InputError: they do not; says which site differs.
    """
    sets: dict[str, Seen] = {}
    for name in scenario.sets:
        asked = [site for site in scenario.sites_of(name) if site in surveys]  # others have departed
        seen = {site: (surveys[site].classes[name], surveys[site].shape) for site in asked}
        agree(seen)
        if seen:
            sets[name] = next(iter(seen.values()))
    if not sets:
        raise InputError(f"{scenario.name}: every site that held rows has departed; there is nothing to train on")
    union(sets)
    return {name: classes for name, (classes, _) in sets.items()}, next(shape for _, shape in sets.values())


def remembered(scenario: Scenario, family: Family) -> dict[str, tuple[str, ...]]:
    """Classes of sets that only places held which have departed: what the heads of models that were trained on them say."""
    found = {}
    for name, model in family.whole_lineage.by_name.items():
        held, grown = scenario.outputs(name) if name in scenario.models else (None, ())
        if held and family.departed.keys() >= set(scenario.sites_of(held)):
            found[held] = model.head[: len(model.head) - len(grown)]
    return found


def usable(task: Train, answer: Trained, rows: Mapping[str, int], net: nn.Module) -> Trained:
    """An answer that is what was asked for.

    Args:
        task: what was asked.
        answer: of the site.
        rows: how many of each class the site said it would train on.
        net: one of the architecture that was asked for.

    Raises:
        TrainingError: it has other outputs, rows or weights, or no version where one was to be kept.
    """
    where = f"{task.place}: trained {task.recipe.name!r}"
    head = head_of(net, task.recipe.head)
    if answer.head != head:
        raise TrainingError(f"{where} with outputs {answer.head}, asked was {head}; do all sites have the same net?")
    if dict(answer.rows) != dict(rows):
        raise TrainingError(f"{where} on rows {dict(answer.rows)}, before it told of {dict(rows)}; leave its data as it is")
    if bool(answer.version) != task.keep or (answer.version and not VERSION.fullmatch(answer.version)):
        raise TrainingError(f"{where} and calls its version {answer.version[:80]!r}, expected a hash of 64 digits")
    if task.give:
        usable_weights(answer.weights, net, where)
    return answer


def usable_weights(weights: Tensors, net: nn.Module, where: str) -> Tensors:
    """Weights of a net, finite ones.

    Raises:
        TrainingError: they are not.
    """
    own = net.state_dict()
    try:
        same(weights, own, "weights that were sent, and net")
    except ShapeError as error:
        raise TrainingError(f"{where}: {error}; do all sites have the same net?") from error
    for name, tensor in weights.items():
        if tensor.dtype != own[name].dtype or not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{where}: {name!r} is of {tensor.dtype}, or not finite; expected {own[name].dtype}, finite")
    return weights
