"""Shadow models at an heir's home, for the audit: trained on halves of its rows, kept there, edited by the heir's method."""

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from fedunlearn.data import Rows
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Effort, Material, accuracy
from fedunlearn.evaluation.outputs import loss_gap
from fedunlearn.evaluation.shadows import Unlearn, train_shadows
from fedunlearn.importance import measure, to_mask
from fedunlearn.methods import Case, Method, make
from fedunlearn.methods.base import Evidence, Home, Strength, Want
from fedunlearn.methods.menu import code_of
from fedunlearn.nets import load, weights_of
from fedunlearn.runtime.tasks import Audit
from fedunlearn.tensors import Head, Tensors

FOLDER = "shadows"


def audit_effort(
    audit: Audit, rows: Material, head: Head, net: Callable[[int], nn.Module], folder: Path, device: str
) -> Effort:
    """Pools and the method under test; without rows that were trained on, and others like them, there is nothing to attack.

    Args:
        audit: recipe, number, method.
        rows: of the heir.
        head: the heir's outputs.
        net: makes the heir's architecture, initialised from a seed.
        folder: the home's own; pools are kept in it under `FOLDER`.
        device: where to train.

    Raises:
        InputError: the number is odd or too small, or a method that should be of the menu is unknown.
    """
    if min(len(rows.parts[part]) for part in ("forgotten_training", "others")) < 2:
        return Effort()
    method, why = _as_then(audit)
    recipe = replace(audit.recipe, device=device)
    pools = [
        train_shadows(folder / FOLDER, some, net, recipe, audit.shadows) for some in (rows.population, rows.population_without)
    ]
    unlearn = forgetting(method, audit.strength, head, rows.classes, rows.gone) if method else None
    return Effort(shadows=pools[0], innocents=pools[1], unlearn=unlearn, why=why)


def _as_then(audit: Audit) -> tuple[Method | None, str]:
    """The method that edited the heir; None, and why, where that very code is not here."""
    if not audit.method:
        return None, "the ledger does not say which code edited the model, so that shadow models cannot be unlearned by it"
    try:
        method = make(audit.method, audit.settings)
    except InputError as error:
        if ":" not in audit.method:
            raise
        return None, f"shadow models cannot be unlearned as the model was: {error}"
    if audit.text != (text := code_of(method).get("text", "")):
        return None, (
            f"shadow models cannot be unlearned as the model was: the files of {audit.method} here are others now "
            f"({text[:12] or 'none'}) than those that edited it ({audit.text[:12] or 'none'})"
        )
    return method, ""


def forgetting(method: Method, strength: Strength, head: Head, classes: Collection[str], gone: Collection[str] = ()) -> Unlearn:
    """A method as it is done to one model on rows that are all at hand, with the strength that the heir got.

    Args:
        method: the method.
        strength: of the edit.
        head: outputs of the model.
        classes: to be forgotten; none where it is about samples.
        gone: classes forgotten earlier, which must not come back in their place.
    """
    named = tuple(c for c in classes if c in head.classes)
    wanted = method.wants(named)
    masked = to_mask(head.classes, named, gone) if wanted and wanted.loss == "masked" else ()

    def unlearn(net: nn.Module, forget: Rows, keep: Rows, held: Rows) -> nn.Module:
        if not len(keep):
            raise InputError(f"{method.name}: a shadow model would have no row left to keep, none but those to be forgotten")
        weights = weights_of(net)
        weighed = keep if method.retained else joined([part for part in (forget, keep) if len(part)])  # as heirs are
        own = _mean(net, weighed, head, method, method.own) if method.own else Evidence()
        found = []
        for about in named if method.apart and named else ("",):
            some = forget.of([about]) if about else forget
            if wanted is None or not len(some):
                continue
            one = replace(_mean(net, some, head, method, wanted, masked), about=about)
            case, like = Case((one,), own, head, named), held.of(some.counts())
            left = partial(_left, net, like if named and len(like) else some)  # as at a root
            found.append(replace(one, enough=method.enough(weights, case, left, loss_gap(net, like, some))))
        home = Home.granted(method.needs, deepcopy(net), forget, keep)
        known = frozenset(name for name, _ in net.named_parameters())
        case = Case(method.merge(found) if found else (), own, head, named, home, known)
        if (why := method.misses(case)) is not None:
            raise InputError(f"{method.name}: a shadow model {why}")
        return load(deepcopy(net), method.edit(weights, case, strength))

    return unlearn


def _left(net: nn.Module, rows: Rows, edited: Tensors) -> float:
    return accuracy(load(deepcopy(net), edited), rows) or 0.0


def _mean(net: nn.Module, rows: Rows, head: Head, method: Method, want: Want, masked: tuple[str, ...] = ()) -> Evidence:
    if want.rows:
        rows = rows.spread(want.rows)
    found = measure(
        net, rows.x, rows.y, head=head, layers=method.layers, statistic=want.statistic, loss=want.loss, masked=masked
    )
    return Evidence(found.mean(want.statistic), found.count)
