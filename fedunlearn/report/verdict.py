"""The outcome of a request in a few sentences, the worst first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.report.words import several

STATUSES = {
    "pending": "held back by the gate",
    "untouched": "could not be edited",
    "waiting": "waiting for a place that is offline",
}


def verdict(models: Sequence[Mapping[str, Any]], undone: int | None, lost: Sequence[str]) -> dict[str, Any]:
    """What somebody reads who reads one thing.

    Args:
        models: those of the document.
        undone: number of the line that rolled the request back, if one did.
        lost: models that the request reaches and that were lost with their homes before it.

    Returns:
        `tone`, the highest level of residual risk of any model, and `sentences`.
    """
    affected = [m for m in models if m["risk"] != "none"]
    risks = Counter(m["risk"] for m in affected)
    status = Counter(m["status"] for m in affected if m["affected"])
    reached = f"The request reached {_count(len(affected))} with weights"
    if undone is not None:
        first = f"{reached}; all of it was rolled back by ledger line {undone}, and the versions from before came into force."
        since = [m["name"] for m in affected if (m["later"] or 0) > undone]
        if since:
            first += f" Later lines have changed {_count(len(since))} since: this page does not tell what these hold."
    elif not affected:
        first = "No model with weights had been trained on it; nothing was edited."
    elif status["committed"] == len(affected):
        first = f"{reached}; each was edited and accepted by the gate."
    else:
        left = [f"{n} {words}" for s, words in STATUSES.items() if (n := status[s])]
        left += [f"{n} not decided by this ledger line"] if (n := len(affected) - sum(status.values())) else []
        first = f"{reached}: {status['committed']} edited and accepted by the gate, {', '.join(left)}."
    sentences = [first]
    if lost:
        are = "is lost with its home" if len(lost) == 1 else "are lost with their homes"
        more = f"It reaches {_count(len(lost))} more, which {are}"
        sentences.append(f"{more}: what is left in {several(lost)}, nobody here can say.")
    if before := [m["name"] for m in affected if m.get("earlier") is not None]:
        were = f"{_count(len(before))} of these; that is in force."
        sentences.append(f"An earlier line for the same request, or for a wider one, had edited {were}")
    known = sum(m["risk"] == "doubtful" and m["remembers"] for m in affected)
    if known:
        sentences.append(
            f"In {_count(known)} that passed, a deeper test found more of what is to be forgotten than in a retrained model."
        )
    if lacking := risks["doubtful"] - known:
        sentences.append(f"For {_count(lacking)} that passed, a test or evidence that was due is missing.")
    if risks["unknown"]:
        sentences.append(f"{_count(risks['unknown'])} passed on outputs alone: whether features still know is not examined.")
    if risks["low"]:
        sentences.append(f"In {_count(risks['low'])} the deeper tests that were taken found nothing.")
    return {"tone": next((m["risk"] for m in models), "none"), "sentences": sentences}


def _count(number: int) -> str:
    return f"{number:,} model{'s' if number != 1 else ''}"
