"""How much of what was to be forgotten may still be in a model: five levels, each with a shape, words and a reason.

Levels are of evidence, not of probability. Only tests that compare with a model retrained without the data, or with chance,
count; population attacks, CKA and the Fisher residual are shown and decide nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedunlearn.evaluation.intervals import proportion
from fedunlearn.report.words import title

FEWER_STEPS = 0.5  # an edited model that relearns in less than this share of a retrained model's steps remembers
DEEP = ("probe", "relearn_retained", "ulira", "ulira_from_retrained")  # one of them it takes to speak of low risk


@dataclass(frozen=True)
class Level:
    """One level of residual risk.

    Args:
        name: for machines.
        shape: drawn beside the colour, which alone says nothing to many.
        words: for people.
        meaning: a sentence.
    """

    name: str
    shape: str
    words: str
    meaning: str


LEVELS = {
    level.name: level
    for level in (
        Level("open", "■", "still in force", "The version in force was not changed: it knows what it knew."),
        Level(
            "doubtful",
            "▲",
            "in doubt",
            "Edited and accepted; but a deeper test found residue, or something that was due was not tested.",
        ),
        Level("unknown", "◆", "not examined", "Edited, and the gate was satisfied; nobody looked below its outputs."),
        Level("low", "●", "nothing found", "Edited, and the deeper tests that were taken found nothing."),
        Level("none", "○", "not affected", "What is to be forgotten did not reach it."),
    )
}


def judge(row: Mapping[str, Any], evaluation: Mapping[str, Mapping[str, Any]], untested: bool, undone: bool) -> dict[str, Any]:
    """The level of one heir, and what it rests on.

    Args:
        row: the heir, as the record keeps it.
        evaluation: tier -> result, of the version that the record names.
        untested: whether the request was committed with what could not be tested accepted.
        undone: whether the ledger line was rolled back.

    Returns:
        `risk`, a name in `LEVELS`; `findings`, sentences; and `remembers`, whether a test of the edited version found residue.
    """
    left = residue(evaluation)
    if undone or row["status"] != "committed":
        why = {
            "pending": "The candidate was held back by the gate; the old version is in force.",
            "untouched": "It was not edited; the old version is in force.",
            "waiting": "It waits for a place that is offline; the old version is in force.",
        }
        text = why.get(row["status"], "The edit was rolled back, and the old version came into force.")
        return {"risk": "open", "findings": [text, *left], "remembers": bool(left)}
    doubts = [*_gaps(row, untested), *left]
    if doubts:
        return {"risk": "doubtful", "findings": doubts, "remembers": bool(left)}
    taken = [m for result in evaluation.values() for m in result["metrics"] if m in DEEP and "retrained" in result["nets"]]
    if taken:
        return {"risk": "low", "findings": [f"Nothing found by {', '.join(map(title, taken))}."], "remembers": False}
    nobody = "No probe, relearning or membership attack beside a retrained model."
    return {"risk": "unknown", "findings": [nobody, *map(_sentence, row.get("unresolved", ()))], "remembers": False}


def few(row: Mapping[str, Any], limit: float) -> Iterator[str]:
    """What rows were too few to tell: that no more than the gate's limit is left, in spite of what chance may have hidden."""
    left, rows = row["forgotten_after"], row["rows_forgotten"]
    if row["status"] != "committed" or row["target"] != "absent" or left is None or not rows or left > limit:
        return
    most = proportion(round(left * rows), rows).high
    if most > limit:
        yield (
            f"It was tested on {rows:,} forgotten rows: as far as so few can tell (95 %), up to {most:.1%} may still be "
            f"recognised, where the gate allows {limit:.1%}."
        )


def _gaps(row: Mapping[str, Any], untested: bool) -> Iterator[str]:
    if row["unmeasured"]:
        more = " and others" * (len(row["unmeasured"]) > 3)
        yield f"Evidence was not measured, or on some of the rows only: {', '.join(row['unmeasured'][:3])}{more}."
    if untested and row.get("untested"):
        yield f"Committed untested, for a reason that is in the ledger. {_sentences(row['untested'])}"
        return
    due = row["target"] != "not_expressible" and row["forgotten_after"] is None  # of a record from before it said so itself
    again = row["target"] == "as_retrained" and row["retrained_forgotten"] is None
    if untested and (due or again or row["retained_after"] is None):
        yield "Committed untested, for a reason that is in the ledger."


def _sentences(texts: Sequence[str]) -> str:
    return " ".join(map(_sentence, texts))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def residue(evaluation: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What tests found of the edited version, a sentence each; nothing where they found nothing or were not taken."""
    found: dict[str, Any] = {name: of for result in evaluation.values() for name, of in result["metrics"].items()}
    return [text for name, test in _TESTS.items() if name in found for text in test(found[name])]


def _recovered(of: Mapping[str, Any], how: str) -> Iterator[str]:
    above = of["after"].get("above_retrained")
    if isinstance(above, Mapping) and above["low"] > 0:
        share = of["after"]["recovery"]["value"]
        yield (
            f"{how} finds what is forgotten in {share:.1%} of the rows, {100 * above['value']:.1f} points above the retrained "
            f"model (95%: {100 * above['low']:.1f} to {100 * above['high']:.1f})."
        )


def _relearned(of: Mapping[str, Any], how: str) -> Iterator[str]:
    steps, again = of["after"]["steps"], of.get("retrained", {}).get("steps")
    if isinstance(steps, int) and again is not None and (not isinstance(again, int) or steps < FEWER_STEPS * again):
        yield f"{how} brings it back in {steps} steps; the retrained model: {again}{' steps' * isinstance(again, int)}."


def _membership(of: Mapping[str, Any], how: str) -> Iterator[str]:
    area = of["after"]["auc"] if "after" in of else None
    if area is None or area["low"] <= 0.5 <= area["high"]:
        return
    control = max((abs(v["auc"]["value"] - 0.5) for net, v in of.items() if net.startswith("retrained")), default=0.0)
    if abs(area["value"] - 0.5) > control:
        yield (
            f"{how} tells the forgotten rows apart: AUC {area['value']:.2f} (95%: {area['low']:.2f} to {area['high']:.2f}), "
            f"where 0.5 is chance."
        )


def _triggered(of: Mapping[str, Any]) -> Iterator[str]:
    control = of["retrained"]["stamped"] if "retrained" in of else of["after"]["clean"]
    stamped = of["after"]["stamped"]
    if stamped["low"] > control["high"]:
        yield f"The planted trigger still works on {stamped['value']:.1%} of the rows; control: {control['value']:.1%}."


_TESTS = {
    "probe": lambda of: _recovered(of, "A linear probe on its features"),
    "prototypes": lambda of: _recovered(of, "The nearest class mean of its features"),
    "relearn_retained": lambda of: _relearned(of, "Training on rows that all stay"),
    "relearn_shots": lambda of: _relearned(of, "Training on a few rows of each class"),
    "ulira": lambda of: _membership(of, "A per-example membership attack"),
    "ulira_from_retrained": lambda of: _membership(of, "A per-example attack that compares with models that never saw them"),
    "backdoor": _triggered,
}
