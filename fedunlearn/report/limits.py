"""What the evidence does not prove. Each sentence is there only where it applies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedunlearn.report.history import retaken
from fedunlearn.report.measurements import Evaluation
from fedunlearn.report.words import several
from fedunlearn.scores import KNOWN
from fedunlearn.store import Line


@dataclass(frozen=True)
class Around:
    """What is known around a record.

    Args:
        beside: whether some results that are used are not what a ledger line has or names.
        seal: what of the request is sealed.
        excluded: what may not be trained on any more.
        tries: earlier ledger lines that tried the same.
        tests: ledger lines that name what was evaluated afterwards.
        gone: of results that ledger lines name, those that are not at hand: by model and tier, what to say of them.
        owing: places that have not said that they erased what is sealed.
        departed: places that are gone for good, and the ledger lines that say so.
        imported: models that came with their weights.
        unaccounted: those of them with an output for what is to be forgotten, which the request does not reach.
    """

    beside: bool
    seal: Mapping[str, Any]
    excluded: Mapping[str, Any]
    tries: Sequence[Mapping[str, Any]]
    tests: Sequence[Mapping[str, Any]]
    gone: Mapping[tuple[str, str], str]
    owing: Sequence[str]
    departed: Mapping[str, Line]
    imported: Sequence[str]
    unaccounted: Sequence[str]


def limits(facts: Mapping[str, Any], evaluations: Mapping[str, Evaluation], around: Around) -> list[dict[str, str]]:
    """Short paragraphs, each with `about` and `text`.

    Args:
        facts: the record's.
        evaluations: of each model, those that are used.
        around: what else is known.
    """
    taken = {metric for tiers in evaluations.values() for result in tiers.values() for metric in result["metrics"]}
    nets = {net for tiers in evaluations.values() for result in tiers.values() for net in result["nets"]}
    said = [
        (
            "Saying is not knowing",
            "Accuracy on held-out rows shows what a model answers. A model can stop naming a class and still hold it in its "
            "features; covering one output has that effect, which is why the logit mask stands beside every result.",
        ),
        (
            "An attack that fails",
            "It bounds that attack with that effort, and no other. Stronger ones may exist, and an interval that holds 0.5 "
            "means that these rows did not suffice to tell, not that nobody can.",
        )
        if taken & {"ulira", "ulira_from_retrained", "population_membership", "relearn_retained", "relearn_shots"}
        else (
            "Nobody has attacked",
            "No membership attack, no relearning and no probe was run for this page. That nothing was found below the outputs "
            "is because nobody looked.",
        ),
        (
            "No model was trained again",
            "Nothing is compared with a model that never saw the data. What such a model would still recognise, and whether an "
            "edit went too far, this page cannot say.",
        )
        if not any(net.startswith("retrained") for net in nets)
        and all(m["retrained_forgotten"] is None and m["retrained_retained"] is None for m in facts["models"])
        else (
            "Like a retrained model",
            "Forgetting is judged by a model that was trained again without the data. "
            + (
                "There is one of it, so that the page cannot say how far apart two of them are by chance."
                if "retrained_2" not in nets
                else "Several of them, of different seeds, say how far apart two are by chance; no method can do better."
            )
            + " Zero is not the aim where a retrained model would not show zero: over-forgotten rows are told apart, too.",
        ),
        (
            "Not deletion",
            f"{_versions(around.seal, around.owing)}{_rows(around.excluded)}Copies that were exported are out of reach.",
        ),
        (
            "Only what the lineage knows",
            "A model that was trained or copied outside of it is not found. That a model was not affected means that no "
            "recorded ancestor was trained on what is forgotten.",
        ),
        (
            "Not privacy",
            "Evidence that sites send tells something of the rows it was measured on, and whoever holds a model from before "
            "and after can compare the two. Numbers were reported by the places and taken at their word.",
        ),
        (
            "The chain of hashes",
            "It shows that no line was changed, removed or moved since. It cannot show that the whole file was not written "
            "anew, or that its end was not cut off: keep the last hash somewhere else."
            + (
                " Some results of tests lie beside it: no line names them, and they can be replaced, or taken until they "
                "please, and nobody would see."
                if around.beside
                else ""
            ),
        ),
    ]
    if lacking := {text: one["number"] for one in around.tests for text in one["lacking"]}:
        told = ", ".join(f"{text} (ledger line {number})" for text, number in lacking.items())
        text = f"Retrained models that stand beside tests taken later lack more than was to be forgotten here: {told}. Rows of "
        text += "classes that everybody had to forget are left out of the comparison; what else they lack makes them worse."
        said.insert(0, ("Compared with models that know less", text))
    if again := retaken(around.tests):
        listed = [f"{tier} of {model} (ledger lines {', '.join(map(str, n))})" for (tier, model), n in again.items()]
        said.append(("Tested more than once", f"This page shows the last of each: {several(listed)}."))
    whose: dict[str, list[str]] = {}
    for (model, _), why in around.gone.items():
        whose.setdefault(why, []).append(model)
    for why, models in whose.items():
        said.insert(0, ("Found, and not at hand", f"Of {several(models)} {why}."))
    if others := [x for x in around.tries if x["gate"] is not None and x["held_back"]]:
        text = "; ".join(f"ledger line {x['number']} held back {x['held_back']}, by {_gate(x['gate'])}" for x in others)
        said.insert(0, ("Judged by other limits before", f"Earlier tries of this request had other limits: {text}."))
    for place, line in around.departed.items():
        lost = f", and with it {', '.join(line.body['lost'])}" if line.body["lost"] else ""
        text = f"On {line.time[:10]} (ledger line {line.number}) {place} was given up{lost}. What it still holds, and whether "
        said.append(("Departed", text + "it erased what it was told to, nobody here can say."))
    if around.imported:
        text = f"{several(around.imported)} came with weights that were trained elsewhere. On what, and from which model, is "
        said.insert(0, ("Its owner's word", text + "what the topology says of them; nothing here has seen it."))
    if around.unaccounted:
        text = f"{several(around.unaccounted)} can name what is to be forgotten, and nothing that is recorded taught it. No "
        text += "request reaches what nobody knows: whoever has these models has to say where they come from."
        said.insert(0, ("Not reached", text))
    if unregistered := facts.get("unregistered"):
        text = f"The register of {', '.join(unregistered)} was lost when this was done. If rows have come, gone or moved since "
        text += "models were trained, some that they were trained on are among the test rows."
        said.insert(0, ("Rows that were held out", text))
    if spent := facts.get("spent"):
        text = f"An earlier try was sealed before this one, and how {several(spent)} was before is erased. Evidence was "
        text += "measured on what had forgotten already, and may show little of where it lay."
        said.insert(0, ("Measured after forgetting", text))
    doubtful = [m["name"] for m in facts["models"] if m["forgotten_before"] is not None and m["forgotten_before"] < KNOWN]
    if doubtful and facts["request"]["classes"]:
        text = f"{several(doubtful)} recognised less than half of it before. That they do not now shows little: a model that "
        said.insert(0, ("Little was known", text + "hardly knew something has little to lose."))
    if facts["accepted_untested"] is not None:
        said.insert(0, ("Committed untested", "Somebody accepted what could not be tested. For those models nothing is shown."))
    return [{"about": about, "text": text} for about, text in said]


def _versions(seal: Mapping[str, Any], owing: Sequence[str]) -> str:
    """Where versions from before are."""
    words = ""
    if seal["open"]:
        words = "The versions from before stay in the stores of their homes, so that the edit can be undone, until the request "
        words += "is sealed (fedunlearn seal). "
    if seal["by"] is not None:
        done = f"not yet at {', '.join(owing)}" if owing else "every place has said that it did"
        words = f"Ledger line {seal['by'].number} has the versions from before erased, of models that were changed: {done}. "
        if seal["left"]:
            words += f"{several(seal['left'])} held the data still, and stayed as it was. "
    for one in seal["earlier"]:
        words += f"What ledger line {one['line']} had changed was sealed by line {one['by']}. "
    return words + ("Media, snapshots and backups are not looked into. " if seal["by"] is not None or seal["earlier"] else "")


def _rows(excluded: Mapping[str, Any]) -> str:
    """What becomes of the rows themselves."""
    if excluded["lifted"] is not None:
        return f"The rows stay where they are, and may be trained on again since ledger line {excluded['lifted']}. "
    told = (
        "sites are told not to train on them any more" if excluded["at"] else "no model was changed, and no site told anything"
    )
    return f"The rows stay where they are: {told}. "


def _gate(gate: Mapping[str, Any]) -> str:
    """The limits on answers, in words."""
    left, lost = gate["forgotten_at_most"], gate["retained_drop_at_most"]
    return f"at most {left:.2%} left and {lost:.2%} lost on the rest"
