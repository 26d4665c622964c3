"""A comparison as text: one line a topology and method, one a cell, and what must be said with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedunlearn.compare.asked import FAMILYS
from fedunlearn.compare.cells import JUDGED, RETRAINED, class_of
from fedunlearn.compare.deeper import DEEPER, Deeper
from fedunlearn.runtime.books.record import COMMITTED

Result = Mapping[str, Any]
FEW = "*"  # marks a share of fewer than `JUDGED` rows
AIMED = ("from retrained", "worst from retrained", "aimed at retrained: lost")
INHERITED = ("inherited: within limits", "inherited: worst of all", "inherited: worst lost")
MOST = 3  # reasons that are given for one method


@dataclass(frozen=True)
class Table:
    """Text in columns.

    Args:
        header: of each column.
        lines: each as many texts as there are columns.
    """

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a table of Markdown."""
        rule = "|---" * len(self.header) + "|"
        shown = (f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in self.lines)
        return "\n".join([f"| {' | '.join(self.header)} |", rule, *shown])

    def without(self, columns: Sequence[str]) -> "Table":
        """The same without some columns, as far as they are there."""
        stay = [i for i, name in enumerate(self.header) if name not in columns]
        return Table(tuple(self.header[i] for i in stay), tuple(tuple(line[i] for i in stay) for line in self.lines))


def overview(result: Result) -> Table:
    """One line for every topology and method. In percent, and in points where something is lost."""
    header = ["topology", "method", "accepted", "cells", "within limits", "left", "worst model", "worst class", "worst of all",
              "lost", "worst lost", "mask: lost", *INHERITED, *AIMED, *(d.header for d in DEEPER),
              "seconds"]  # fmt: skip
    lines = []
    for s in result["summary"]:
        tried = sum(s["outcomes"].values())
        lines.append([
            s["topology"],
            s["method"] + ": simulation only" * s["simulation"],
            "-" if s["method"] == RETRAINED else f"{s['outcomes'].get(COMMITTED, 0)} of {tried}",
            f"{s['counted']} of {s['cells']}",
            f"{s['within']} of {s['judged']}" if s["judged"] else "-",
            _share(s["left"]),
            *(_named(s[k], _share) for k in ("worst_heir", "worst_class", "worst")),
            _points(s["lost"]),
            _named(s["worst_lost"], _points),
            _points(s["mask_lost"], False),
            f"{s['inherited']['within']} of {s['inherited']['judged']}" if s["inherited"]["judged"] else "-",
            _named(s["inherited"]["worst"], _share),
            _named(s["inherited"]["worst_lost"], _points),
            _points(s["gap"]),
            _named(s["worst_gap"], _far),
            _points(s["gap_lost"]),
            *(_deeper(d, s, True) for d in DEEPER),
            "-" if s["seconds"] is None else f"{s['seconds']:.2f}",
        ])  # fmt: skip
    many = len({s["topology"] for s in result["summary"]}) > 1
    may_go = ("within limits", *INHERITED, *AIMED, *(d.header for d in DEEPER))
    return _without_empty(header, lines, may_go, () if many else ("topology",))


def details(result: Result) -> Table:
    """One line for every cell: an heir, a class and a method, seeds pooled."""
    header = ("topology", "method", "class", "model", "born", "depth", "target", "before", "left", "retrained",
              "rest before", "lost", "mask: lost", "retrained: lost", "accepted",
              *(d.header for d in DEEPER), "counted")  # fmt: skip
    lines = []
    for c in result["cells"]:
        few = "" if c["judged"] else f" (under {JUDGED} rows)"
        lines.append([
            c["topology"], c["method"], class_of(c), c["heir"], c["born"], str(c["depth"]), c["target"],
            percent(c["before"]), _share(c["left"]), percent(c["retrained_left"]),
            percent(c["rest_before"]), _points(c["lost"]), _points(c["mask_lost"], False), _points(c["retrained_lost"], False),
            f"{c['outcomes'].get(COMMITTED, 0)} of {c['seeds']}",
            *(_deeper(d, c, False) for d in DEEPER), f"yes{few}" if c["counts"] else "no",
        ])  # fmt: skip
    return _without_empty(header, lines, tuple(d.header for d in DEEPER), ())


def notes(result: Result) -> list[str]:
    """What the numbers mean, what was held back or failed and why, which settings, where they come from."""
    return [*legend(result), *(text for line in result["summary"] for text in _reasons(line)), *about(result)]


def legend(result: Result) -> list[str]:
    """What the numbers mean."""
    said = [
        "accepted: heirs, seed by seed, to which the gate had no objection. cells: an heir and a class, seeds pooled; counted "
        "are those whose heir must not know the class afterwards and knew at least half of it before.",
        "left: held-out rows of the class that the edited model still recognises, accepted or not, in %, with the wider of two "
        "95 % intervals: Wilson's over the rows of one seed (others draw theirs from the same set; one that several heirs or "
        f"requests were tested on counts once) and Student's over seeds. {FEW} fewer than {JUDGED} rows, all seeds together: "
        "shown, not judged. lost: accuracy on the rest, in points, with Student's 95 % interval over seeds. mask: what the "
        "logit mask loses on the same heirs. inherited: of those cells the models that were not trained on the class "
        "themselves, and have it from others. Where a method failed, models are as before. seconds: wall "
        "clock of one request, all its heirs.",
    ]
    if any(s["judged"] for s in result["summary"]):
        said.append(
            f"within limits: counted cells of at least {JUDGED} rows that keep to them, by what was found, not by ends of "
            "intervals."
        )
    if any(m["simulation"] for m in result["methods"]):
        said.append("simulation only: it needs what no deployment grants, such as rows of the class at every heir's home.")
    drawn = [m["settings"]["seed"] for m in result["methods"] if "seed" in m["settings"]]
    if FAMILYS in drawn:
        said.append(f"seed={FAMILYS}: the method draws at random, anew at every seed; intervals over seeds have that in them.")
    if len(result["seeds"]) > 1 and any(seed != FAMILYS for seed in drawn):
        said.append("seed=a number: the method makes one draw at all seeds, and intervals leave out what others would give.")
    if result.get("tier"):
        said.append(
            f"{result['tier']} tier, means over edited models, requests and seeds, the worst model in brackets: ToW (1 is like "
            "retrained); what a linear probe on the features recognises of the class beyond a retrained model's, in points; "
            "what comes back of it by training on retained rows only, in %; AUC of a population attack by loss (weak: a low "
            "value protects nobody). All classes of a request together."
        )
    if any(s["gap"] for s in result["summary"]):
        said.append(
            "from retrained: of heirs that are to be like a retrained model, and were edited, accuracy on the very rows that "
            "were forgotten, in points from that model's: mean, with Student's 95 % interval over seeds, and the worst heir "
            "and request; strengths were chosen on the same rows, towards the same retrained model. aimed at retrained: lost: "
            "what those heirs lost on the rest."
        )
    return said


def about(result: Result) -> list[str]:
    """Limits, how far unedited models are from retrained ones, which settings, where the numbers come from."""
    said = []
    if any(s["judged"] for s in result["summary"]):
        limits = (
            f"{name}: at most {percent(v['forgotten_at_most'])} % left and {percent(v['retained_drop_at_most'])} points lost"
            for name, v in result["limits"].items()
        )
        said.append(f"limits: {'; '.join(limits)}.")
    known = [s for s in result["summary"] if s["gap_before"]]
    if unedited := max(known, key=_rows_before, default=None):  # not every method was run at every seed
        mean, worst = percent(unedited["gap_before"]["value"]), _named(unedited["worst_gap_before"], _far)
        said.append(f"from retrained, unedited models: {mean}; worst {worst}.")
    said += [text for line in result["summary"] for text in (*_travelled(line), *_unmeasured(line))]
    said += _fewer_seeds(result)
    if chosen := [text for m in result["methods"] if (text := _settings(m))]:
        said.append(f"settings: {'; '.join(chosen)}.")
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    asked = f"{', '.join(result['topologies'])}; seeds {', '.join(map(str, result['seeds']))}"
    return [*said, f"{asked}; commit {result['commit']}; {result['host']}; {versions}."]


def _fewer_seeds(result: Result) -> list[str]:
    """Methods that were not run at every seed: they stand beside others that were, on fewer families."""
    ran: dict[str, set[int]] = {}
    for row in result["rows"]:
        ran.setdefault(row["method"], set()).add(row["seed"])
    by: dict[tuple[int, ...], list[str]] = {}
    for method, seeds in ran.items():
        if method != RETRAINED and seeds < {*result["seeds"]}:
            by.setdefault(tuple(sorted(seeds)), []).append(method)
    return [f"seed{'s' * (len(of) > 1)} {', '.join(map(str, of))} alone: {', '.join(methods)}." for of, methods in by.items()]


def percent(fraction: float | None) -> str:
    """A fraction in percent; a dash where it was not tested."""
    return "-" if fraction is None else f"{round(100 * fraction, 1) + 0.0:.1f}"


def _settings(method: Mapping[str, Any]) -> str:
    """What a method is, where that is more than what it is called."""
    label, name = method["label"], method["method"]
    values = ", ".join(f"{k}={v}" for k, v in method["settings"].items())
    called = label if label == name else f"{label} ({name})"
    return f"{called}: {values}" if values else called * (label != name)


def _reasons(line: Mapping[str, Any]) -> list[str]:
    """Why heirs were not accepted, the most frequent reasons first."""
    found = line["reasons"]
    said = "; ".join(f"{n} {status} ({'such as: ' * (n > 1)}{why})" for n, status, why in found[:MOST])
    more = "; others are in the rows" if len(found) > MOST else ""
    return [f"{line['topology']}, {line['method']}: {said}{more}."] if found else []


def _travelled(line: Mapping[str, Any]) -> list[str]:
    """Where strengths come from, of a method that sends them along with the evidence."""
    if line["travelled"] is None:
        return []
    found, of = line["travelled"]
    other = "" if found == of else "; the others were chosen on the heir's own rows of the class"
    return [f"{line['topology']}, {line['method']}: {found} of {of} strengths are as calibrated at the roots{other}."]


def _rows_before(line: Mapping[str, Any]) -> int:
    return int(line["gap_before"]["n"])


def _far(gap: Mapping[str, Any]) -> str:
    return f"{percent(gap['value'])}{FEW * (gap['n'] < JUDGED)}"


def _unmeasured(line: Mapping[str, Any]) -> list[str]:
    """What has no number, and why."""
    found = line.get("not_measured", ())
    said = "; ".join(f"{n} models: {text}" for n, text in found[:MOST])
    more = "; others are in the rows" if len(found) > MOST else ""
    return [f"{line['topology']}, {line['method']}: not measured: {said}{more}."] if said else []


def _deeper(what: Deeper, of: Mapping[str, Any], worst: bool) -> str:
    s = of.get("deeper", {}).get(what.key)  # results that were kept before there were tiers have none

    def shown(value: float) -> str:
        return percent(value) if what.percent else f"{value:.2f}"

    if s is None:
        return "-"
    return shown(s["value"]) + (f" [{s['name']}: {shown(s['worst'])}]" if worst else "")


def _share(s: Mapping[str, Any] | None) -> str:
    if s is None:
        return "-"
    return f"{percent(s['value'])}{FEW * (s['n'] < JUDGED)} [{percent(s['low'])}, {percent(s['high'])}]"


def _points(s: Mapping[str, Any] | None, interval: bool = True) -> str:
    if s is None:
        return "-"
    return percent(s["value"]) + (f" [{percent(s['low'])}, {percent(s['high'])}]" if interval and s["low"] is not None else "")


def _named(s: Mapping[str, Any] | None, shown: Callable[[Mapping[str, Any]], str]) -> str:
    return "-" if s is None else f"{s['name']}: {shown(s)}"


def _without_empty(header: Sequence[str], lines: Sequence[Sequence[str]], may_go: Sequence[str], goes: Sequence[str]) -> Table:
    """Columns that say nothing here are left out."""
    empty = [h for h in may_go if all(line[header.index(h)] == "-" for line in lines)]
    return Table(tuple(header), tuple(map(tuple, lines))).without((*empty, *goes))
