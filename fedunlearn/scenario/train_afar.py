"""Train a family whose sites are elsewhere, and further models onto it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedunlearn.lineage import Request, ordered
from fedunlearn.nets import head_of
from fedunlearn.runtime import Backend, Family, InProcess, Split, Worker, alone, behind, settle
from fedunlearn.runtime.backend import Progress
from fedunlearn.runtime.settle import exclusions
from fedunlearn.scenario.files import of_family
from fedunlearn.scenario.schema import Scenario
from fedunlearn.scenario.specs import Given
from fedunlearn.scenario.train import UNTRAINED, grown, joining, refuse_departed, started_from
from fedunlearn.scenario.trainer import SoFar, amend, free, train_in_order
from fedunlearn.scenario.trainer_afar import TrainerAfar
from fedunlearn.scenario.workers_here import workers_here


def train_afar(
    scenario: Scenario,
    folder: Path,
    backend: Backend,
    here: Mapping[str, Worker],
    *,
    without: Sequence[Request] = (),
    by: str = "",
    progress: Progress = lambda _: None,
) -> Family:
    """Train every model of a scenario whose data says `sites: own`, each where its rows are.

    On one machine the same rows give the same versions, lineage and heads as `train` does.

    Args:
        scenario: what to train.
        folder: where to keep the family: its lineage, its ledger, and the stores of the places that are here.
        backend: carries tasks to the sites.
        here: places that live with the coordinator (see `workers_here`); every federation's home is one of them.
        without: train as if this data had never been there: a retrained reference. Its versions lie beside the family's at
            the sites, which go on following the family's own ledger.
        by: who does it, for the ledger; by default as for every command.
        progress: told, in words, what is being done.

    Returns:
        The family.

    Raises:
        InputError: the folder holds a family already, or the scenario cannot be trained so; nothing is written then.
        TrainingError: a site failed, refused or answered something else; names it. No family is there then.
        SiteError: the family is trained, but some place does not hold its ledger line yet.
    """
    family = free(folder)
    family.ledger.by = by
    trainer = TrainerAfar.of(scenario, family, backend, here, without, progress)
    train_in_order(trainer, ordered(scenario.parents), SoFar(), progress)
    return family


def extend_afar(
    family: Family, more: Mapping[str, Any], where: str, backend: Backend, *, progress: Progress = lambda _: None
) -> Family:
    """Train further models onto a family whose data says `sites: own`; see `extend`.

    Args:
        family: the family; its scenario grows by the new models.
        more: as for `extend`.
        where: the file, to say in errors.
        backend: carries tasks to the sites.
        progress: told, in words, what is being done.

    Returns:
        The family, opened anew.

    Raises:
        InputError: a model is there already, or cannot be trained so; nothing is written then.
        TrainingError: a site failed, refused or answered something else; the family stays as it was.
        SiteError: the models are trained, but some place does not hold the ledger line yet.
    """
    scenario, order = grown(of_family(family), more, where)
    here = workers_here(scenario, family)
    if not order:
        return amend(family, scenario, InProcess(here), more.get("reason"), Split(here, backend, family.id))
    refuse_departed(family, scenario, order, where)
    both = Split(here, backend, family.id)
    with alone(family, both):  # nothing is trained onto a restored folder that lacks what some place knows
        if exclusions(family) or behind(family):  # a place trains on what it was not told to leave out, or has lost word of
            settle(family, both, joining=joining(family, scenario), otherwise=UNTRAINED)
    trainer = TrainerAfar.of(scenario, family, backend, here, (), progress)
    specs, heads = trainer.specs, family.heads
    so_far = SoFar(list(family.whole_lineage.models))
    for model in started_from(family, scenario, order):
        head = head_of(specs.make(len(model.head), model.net, 0), model.head)
        version = heads[model.name]
        state = trainer.store(model.home).read_state(version) if model.home in trainer.here else {}
        so_far.given[model.name] = Given({}, head, version, state)
    train_in_order(trainer, order, so_far, progress, reason=more.get("reason"))
    return Family.open(family.folder)
