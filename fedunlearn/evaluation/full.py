"""Minutes: what is left below the last layer, what comes back, and what population attacks see."""

from typing import Any

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.evaluation.alignment import cka_by_layer
from fedunlearn.evaluation.backdoor import success
from fedunlearn.evaluation.intervals import difference, proportion
from fedunlearn.evaluation.membership import population_logistic, population_scores, verdict
from fedunlearn.evaluation.probe import Probe, linear_probe, prototypes
from fedunlearn.evaluation.relearn import FRACTION, ain, relearn, shots
from fedunlearn.evaluation.residual import fisher_residual
from fedunlearn.evaluation.trial import Trial, at_most

NO_REFERENCE = "no retrained model was given"


def probe(trial: Trial) -> dict[str, Any]:
    """A new last layer on frozen features: recovery of the forgotten classes on test rows, and the difference to retrained."""
    seed = trial.effort.seed
    return _recovery(trial, lambda net: linear_probe(trial.features(net, "calibration"), trial.features(net, "test"), seed))


def class_means(trial: Trial) -> dict[str, Any]:
    """The nearest mean of a few rows of each class: what overwriting a head row by a prototype recognises."""
    few = trial.effort.shots
    return _recovery(trial, lambda net: prototypes(trial.features(net, "calibration"), trial.features(net, "test"), few))


def alignment(trial: Trial) -> dict[str, Any]:
    """Linear CKA of each layer on forgotten rows: to the unedited net, and to a retrained one."""
    rows, nets = trial.parts["forgotten_inputs"], trial.nets.named
    rows = at_most(rows, trial.effort.few, trial.effort.seed)
    again = trial.nets.again
    found: dict[str, Any] = {}
    for name in [n for n in nets if n not in again] + again[1:]:
        to = [("to_before", "before")] if name not in ("before", *again) else []
        to += [("to_retrained", again[0])] if again else []
        found[name] = {label: cka_by_layer(nets[name], nets[other], rows) for label, other in to}
    return {**{name: of for name, of in found.items() if of}, "rows": len(rows)}


def fisher(trial: Trial) -> dict[str, Any]:
    """Share of the Fisher information on held-out rows of the classes that each layer has, relative to the unedited net."""
    rows, head = trial.parts["forgotten"], trial.nets.head
    measured = trial.material.measured if trial.material.measured is not None else frozenset(trial.material.forgotten.keys)
    nets, before = trial.nets.named, trial.nets.before
    return {n: fisher_residual(net, before, rows, head, measured) for n, net in nets.items() if n != "before"}


def relearn_retained(trial: Trial) -> dict[str, Any]:
    """Fine-tuning on rows that all stay: does what is forgotten come back?"""
    return _relearned(trial, trial.material.retained, to_the_end=True)


def relearn_shots(trial: Trial) -> dict[str, Any]:
    """Fine-tuning on k rows of each class, the forgotten ones among them: steps, and their ratio to the retrained model's."""
    material = trial.material
    source = material.forgotten if len(material.forgotten) else material.calibration.of(material.classes)
    stays = material.retained if len(material.retained) else material.calibration.without({*material.classes, *material.gone})
    return _relearned(trial, shots(source, stays, trial.effort.shots), to_the_end=False)


def population_membership(trial: Trial) -> dict[str, Any]:
    """Attacks with one threshold for all rows. Weak: a low value protects nobody; to be read against the retrained model's."""
    parts = trial.parts
    found: dict[str, Any] = {}
    for net in trial.nets.named:
        member, other = (trial.logits(net, p) for p in ("forgotten_training", "others"))
        scores = [population_scores(out, parts[p].y) for out, p in ((member, "forgotten_training"), (other, "others"))]
        found[net] = {a: _brief(verdict(scores[0][a], scores[1][a], None, trial.effort.seed)) for a in scores[0]}
        if len(parts["retained"]) and len(parts["test"]):
            sets = [(trial.logits(net, p), parts[p].y) for p in ("retained", "test", "forgotten_training")]
            try:
                known, called = population_logistic(sets[0], sets[1], sets[2], trial.effort.seed)
            except InputError as error:  # too few rows to learn it from; the other attacks need none
                found[net]["logistic"] = {"not_measured": str(error)}
            else:
                found[net]["logistic"] = {"attack": _brief(known), "forgotten_called_members": called.to_json()}
    return found


def backdoor(trial: Trial) -> dict[str, Any]:
    """How often the planted trigger works on held-out rows."""
    trigger, rows = trial.material.trigger, trial.parts["test"]
    assert trigger is not None
    return {name: success(net, rows, trigger).to_json() for name, net in trial.nets.named.items()}


def _recovery(trial: Trial, of: Any) -> dict[str, Any]:
    classes, again = trial.material.classes, trial.nets.again
    probes: dict[str, Probe] = {net: of(net) for net in trial.nets.named}
    right = {net: p.of(classes) for net, p in probes.items()}
    found: dict[str, Any] = {}
    for net, p in probes.items():
        rest = p.of(set(p.labels) - {*classes, *trial.material.gone})
        each = {c: _share(p.of([c])) for c in classes}
        found[net] = {"kind": p.kind, "recovery": _share(right[net]), "by_class": each}
        if rest:
            found[net]["rest"] = _share(rest)
        if again and net != again[0]:
            found[net]["above_retrained"] = difference(right[net], right[again[0]]).to_json()
        elif not again:
            found[net]["above_retrained"] = NO_REFERENCE
    return found


def _relearned(trial: Trial, rows: Rows, to_the_end: bool) -> dict[str, Any]:
    watch, again = trial.parts["forgotten"], trial.nets.again
    known = accuracy(trial.nets.before, watch)
    if not known:
        raise InputError("the unedited model recognised none of the forgotten rows; there is nothing to relearn")
    goal = FRACTION * known
    found = {}
    for name, net in trial.nets.named.items():
        trial.progress(f"relearning: {name}")
        found[name] = relearn(net, rows, watch, goal, trial.effort.tuning, to_the_end)
    plain: dict[str, Any] = {name: r.to_json() for name, r in found.items()}
    for name in plain:
        if name not in again[:1]:
            plain[name]["ain"] = ain(found[name], found[again[0]]) if again else NO_REFERENCE
    return plain


def _share(right: list[bool]) -> dict[str, Any]:
    return proportion(sum(right), len(right)).to_json()


def _brief(found: Any) -> dict[str, Any]:
    return {k: v for k, v in found.to_json().items() if k != "curve"}
