"""What the results of the open questions say, in tables and plain sentences; every number is computed from them here.

Long because each question has an answer of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from open_questions_repeated import broken
from reproduced import RETRAINED, Rows, again, counted, left, lost
from scipy.stats import spearmanr

from fedunlearn.evaluation import Gate
from fedunlearn.lineage.plan import ABSENT

LIMITS = Gate()
UNTOUCHED = "untouched"
AFTER = (1, 5, 10, 20)  # requests
LIKENESS = ("cosine", "spearman", "overlap")
SAID = (
    "Cells: still recognised in %, lost on the rest in points; in brackets for how many of seeds, heirs and requests both were "
    "within the gate's limits. Seeds and heirs pooled."
)


def within(rows: Rows) -> bool | None:
    """Whether the limits are kept, seeds and heirs pooled; None where nothing was tested."""
    some = counted(rows)
    remains, cost, anew = left(some), lost(some), left(again(some))
    if remains is None or cost is None:
        return None
    if {r["target"] for r in some} == {ABSENT}:
        near = remains <= 100 * LIMITS.forgotten_at_most
    else:
        near = anew is not None and abs(remains - anew) <= 100 * LIMITS.distance_to_retrained_at_most
    return near and cost <= 100 * LIMITS.retained_drop_at_most


def _with_untouched(rows: Rows) -> Rows:
    """The rows of all methods, and those of doing nothing, where that is not sure to fail."""
    of = [{"request": "", **r} for r in rows if "method" in r]
    same = [{**r, "forgotten_after": r["forgotten_before"], "retained_after": r["retained_before"]} for r in of]
    return of + [{**r, "method": UNTOUCHED} for r in same if r["target"] != ABSENT and r["method"] == of[0]["method"]]


def _methods(rows: Rows) -> list[str]:
    return list(dict.fromkeys(r["method"] for r in rows if "method" in r))


def _cell(rows: Rows) -> str:
    some = counted(rows)
    if not some:
        return "-"
    each = [[r for r in some if (r["seed"], r["heir"], r["request"]) == k] for k in dict.fromkeys(map(_key, some))]
    return f"{left(some):.1f}, {lost(some):.1f} ({sum(within(e) is True for e in each)} of {len(each)})"


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["seed"], row["heir"], row["request"]


def grid(rows: Rows, what: str, name: Callable[[Mapping[str, Any]], str]) -> str:
    """A line for every value that was tried, a column for every method and for the retrained model."""
    of = _with_untouched(rows)
    methods = _methods(of)
    lines = [f"| {what} | {' | '.join((*methods, RETRAINED))} |", "|---" * (len(methods) + 2) + "|"]
    for at in dict.fromkeys(map(name, of)):
        there = [r for r in of if name(r) == at]
        cells = [_cell([r for r in there if r["method"] == m]) for m in methods]
        anew = counted(again(there))
        cells.append(f"{left(anew):.1f}, {lost(anew):.1f}" if anew else "-")
        lines.append(f"| {at} | {' | '.join(cells)} |")
    return "\n".join(lines)


def borne(rows: Rows, cell: str, unit: str, methods: Sequence[str] = ()) -> str:
    """Up to which value each method keeps to the limits, without a gap, in words."""
    of = _with_untouched([r for r in rows if r["cell"] == cell])
    tried = sorted({r["at"] for r in of})
    words = []
    for method in methods or _methods(of):
        kept = []
        for at in tried:
            if within([r for r in of if r["method"] == method and r["at"] == at]) is not True:
                break
            kept.append(at)
        far = "nowhere" if not kept else f"up to {kept[-1]:.3g}{unit}" + " (the most tried)" * (kept[-1] == tried[-1])
        words.append(f"{method} {far}")
    return "; ".join(words)


def listed(rows: Rows, name: Callable[[Mapping[str, Any]], str]) -> str:
    """At how many places each method keeps to the limits, in words."""
    of, words = _with_untouched(rows), []
    for method in _methods(of):
        own = [r for r in of if r["method"] == method]
        kept = [within([r for r in own if name(r) == place]) for place in dict.fromkeys(map(name, own))]
        words.append(f"{method} at {kept.count(True)} of {len(kept) - kept.count(None)}")
    return "; ".join(words)


def repeated(rows: Rows) -> str:
    """The request that is one too many."""
    columns = ("requests", "method", "first after which the rest is down by more than 5 points: pooled", "earliest of all",
               *(f"lost after {n}" for n in AFTER), "most lost", "lost at the end",
               "of all that was asked, still recognised at the end", "failed requests")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    words = []
    for cell in dict.fromkeys(r["cell"] for r in rows):
        of = [r for r in rows if r["cell"] == cell]
        last = max(r["at"] for r in of)
        for method in (*_methods(of), RETRAINED):
            some = [r for r in of if r["method"] == (method if method != RETRAINED else of[0]["method"])]
            if method == RETRAINED:
                some = [{**r, "rest": r["rest_retrained"], "forgotten": r["retrained"], "failed": ""} for r in some]
                some = [r for r in some if r["at"] == last]  # it lacks all that is asked from the start
            pooled = [_average(there) for at in range(last + 1) if (there := [r for r in some if r["at"] == at])]
            each = [
                [r for r in some if (r["seed"], r["heir"]) == k] for k in dict.fromkeys((r["seed"], r["heir"]) for r in some)
            ]
            first, single = broken(pooled), [b for one in each if (b := broken(one)) is not None]
            end = pooled[-1]
            failed = sum(bool(r["failed"]) for r in some)
            shown = (f"{first}" if first is not None else "none", f"{min(single)}" if single else "none")
            down = {r["at"]: 100 * (r["rest_before"] - r["rest"]) for r in pooled}
            numbers = [f"{down[n]:.1f}" if n in down else "-" for n in AFTER]
            numbers += [f"{max(down.values()):.1f}", f"{down[last]:.1f}", f"{100 * end['forgotten']:.1f}"]
            tried = f"{failed} of {len(some)}"
            if method == RETRAINED:
                shown, numbers[-3], tried = ("-", "-"), "-", "-"
            lines.append(f"| {last} x {cell} | {method} | {' | '.join((*shown, *numbers))} | {tried} |")
            if method != RETRAINED:
                words.append(f"{method} breaks at request {first}" if first is not None else f"{method} bears all {last}")
        words[-1] += f" ({cell}). "
    text = "; ".join(words).replace(". ;", ".")
    return f"**Until the rest is down by more than 5 points: {text.strip()}**\n\n" + "\n".join(lines)


def _average(rows: Rows) -> dict[str, Any]:
    """Models and seeds after as many requests: the mean of each number."""
    keys = ("rest", "rest_before", "forgotten")
    known = {k: [r[k] for r in rows if r[k] is not None] for k in keys}
    return {"at": rows[0]["at"], **{k: sum(v) / len(v) if v else None for k, v in known.items()}}


def size(rows: Rows) -> str:
    """The most that can be forgotten, and what that takes."""

    def name(row: Mapping[str, Any]) -> str:
        return f"{row['at']:.0f} % of the {row['cell']}"

    said = "; ".join(f"of the {cell}: {borne(rows, cell, ' %')}" for cell in dict.fromkeys(r["cell"] for r in rows))
    back = deeper(rows, name, "trained on: again recognised, %", "relearned", 100)
    auc = deeper(rows, name, "attacked: AUC of membership", "membership_auc", 1)
    return "\n\n".join((f"**Within the limits, {said}.**", grid(rows, "forgotten", name), back, auc, seconds(rows, name)))


def deeper(rows: Rows, name: Callable[[Mapping[str, Any]], str], what: str, key: str, times: int) -> str:
    """One number of every edited model, and of the retrained one beside it: means over those whose home can tell.

    Args:
        rows: of the question.
        name: of a row's line.
        what: was done with the models, and what the number is.
        key: of the number in the rows.
        times: that it is shown.
    """
    methods, done = _methods(rows), what.partition(":")[0]
    lines = [f"| {what} | {' | '.join((*methods, RETRAINED))} |", "|---" * (len(methods) + 2) + "|"]
    for at in dict.fromkeys(map(name, rows)):
        there = [r for r in rows if name(r) == at]
        each = [_per_model([r for r in there if r["method"] == m], key) for m in methods]
        each.append(_per_model(there, f"{key}_{RETRAINED}"))
        if any(each):
            cells = (f"{times * _mean(of):.{1 if times > 1 else 2}f}" if of else "-" for of in each)
            lines.append(f"| {at}, {done} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _per_model(rows: Rows, key: str) -> list[float]:
    """One number for each seed, request and heir: of several classes all have the same."""
    found = {_key(r): r.get(key) for r in rows}
    return [v for v in found.values() if v is not None]


def seconds(rows: Rows, name: Callable[[Mapping[str, Any]], str]) -> str:
    """What one request took, evaluation left out of the edits; a line for every value that was tried."""
    methods = _methods(rows)
    lines = [f"| seconds | {' | '.join((*methods, RETRAINED))} |", "|---" * (len(methods) + 2) + "|"]
    for at in dict.fromkeys(map(name, rows)):
        there = [r for r in rows if name(r) == at]
        each = [
            {(r["seed"], r["request"]): r["seconds"] - r["evaluation_seconds"] for r in there if r["method"] == m}
            for m in methods
        ]
        each.append({(r["seed"], r["request"]): r["retrain_seconds"] for r in there})
        lines.append(f"| {at} | {' | '.join(f'{_mean(list(of.values())):.2f}' if of else '-' for of in each)} |")
    return "\n".join(lines)


def shift(rows: Rows) -> str:
    """What evidence of other rows does, and how often it is refused."""
    of = [r for r in rows if r["cell"] != "as trained"]
    refused = {cell: [bool(r["refused"]) for r in rows if r["cell"] == cell] for cell in dict.fromkeys(r["cell"] for r in rows)}
    told = ", ".join(f"{cell} {sum(v)} of {len(v)}" for cell, v in refused.items())
    first = f"**Within the limits: {listed(of, lambda r: r['cell'])}.** Refused by the bounds on evidence, by heir: {told}."
    return f"{first}\n\n" + grid(rows, "evidence measured on", lambda r: r["cell"])


def drift(rows: Rows) -> str:
    """How far the root's evidence reaches, the root itself left out, and how alike it is to an heir's own."""
    cells, heirs = list(dict.fromkeys(r["cell"] for r in rows)), [r for r in rows if r["at"]]
    said = " ".join(f"{cell}: heirs within the limits, {borne(heirs, cell, ' generations')}." for cell in cells)
    alike = [r for r in rows if "cosine" in r]
    depths = sorted({1, max(r["at"] for r in alike)})
    columns = (
        "heirs trained",
        "evidence of",
        "layers",
        *(f"depth {d}: cosine, rank correlation, common top 1 %" for d in depths),
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for cell, evidence, part in dict.fromkeys((r["cell"], r["evidence"], r["part"]) for r in alike):
        of = [r for r in alike if (r["cell"], r["evidence"], r["part"]) == (cell, evidence, part)]
        found = [", ".join(f"{_mean([r[k] for r in of if r['at'] == d]):.2f}" for k in LIKENESS) for d in depths]
        lines.append(f"| {' | '.join((cell, evidence, part, *found))} |")
    told = "Alike to the heir's own evidence, on the same rows:\n\n" + "\n".join(lines)
    edits = grid(rows, "heirs trained, depth", lambda r: f"{r['cell'].split(':')[0]}, {r['at']}")
    return f"**{said}**\n\n{told}\n\n{edits}"


def labels(rows: Rows) -> str:
    """How many wrong labels each method bears."""
    cell = rows[0]["cell"]
    return f"**Within the limits: {borne(rows, cell, ' %')}.**\n\n" + grid(rows, "wrong labels", lambda r: f"{r['at']:.0f} %")


def tabled(rows: Rows, what: str, name: Callable[[Mapping[str, Any]], str]) -> str:
    """At how many places each method keeps to the limits, and the grid of them all."""
    return f"**Within the limits: {listed(rows, name)}.**\n\n" + grid(rows, what, name)


def unequal(rows: Rows) -> str:
    """At which sizes."""
    return tabled(rows, "rows, of another class's", lambda r: f"{r['at']:.0f} %")


def masked(row: Mapping[str, Any]) -> str:
    """How many weights."""
    return f"{row['at']:g} % of the weights" if row["at"] else "as many as are chosen"


def whole(rows: Rows) -> str:
    """Which way of choosing."""
    return tabled(rows, "masked", masked)


def parts(rows: Rows) -> str:
    """Which masks forget which part."""

    def name(row: Mapping[str, Any]) -> str:
        return f"{row['cell']}, {row['at']:.0f} % of the units" if row["at"] else f"{row['cell']}, strength chosen"

    return tabled(rows, "forgotten", name)


def _alpha(row: Mapping[str, Any]) -> str:
    return f"{row['cell']}, alpha {row['at']:g}" if row["at"] else f"{row['cell']}, chosen"


def strength(rows: Rows) -> str:
    """Which alphas do, and whether the loss tells which."""
    words = []
    for method in dict.fromkeys(r["method"] for r in rows if r["at"]):
        for cell in dict.fromkeys(r["cell"] for r in rows):  # apart: losses of two sets differ by orders of magnitude
            of = [r for r in rows if r["at"] and (r["method"], r["cell"]) == (method, cell)]
            cases = [
                [r for r in of if (r["seed"], r["class"]) == key] for key in dict.fromkeys((r["seed"], r["class"]) for r in of)
            ]
            best = [min(tried, key=lambda r: (_missed(r), r["at"])) for tried in cases]
            found = spearmanr([r["at"] for r in best], [r["loss"] for r in best]) if len({r["at"] for r in best}) > 1 else None
            said = f"{found.statistic:+.2f} (p = {found.pvalue:.2f})" if found else "one alpha for all"
            words.append(f"{method}, {cell} {said}, {len(cases)} cases")
    told = (
        f"Rank correlation of the best alpha, on the very rows of the table, with the mean loss of what is forgotten: "
        f"{'; '.join(words)}."
    )
    return f"**Within the limits: {listed(rows, _alpha)}.** {told}\n\n" + grid(rows, "", _alpha)


def _missed(row: Mapping[str, Any]) -> float:
    return float(row["forgotten_after"]) + max(0.0, float(row["retained_before"] - row["retained_after"]))


def place(rows: Rows) -> str:
    """What the place of the selected weights does."""
    return tabled(rows, "", _alpha)


def nets(rows: Rows) -> str:
    """In which nets."""
    return tabled(rows, "net", lambda r: str(r["cell"]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


ANSWERS: dict[str, Callable[[Rows], str]] = {
    "repeated": repeated, "size": size, "shift": shift, "drift": drift, "labels": labels, "unequal": unequal, "parts": parts,
    "whole": whole, "strength": strength, "place": place, "nets": nets,
}  # fmt: skip


LETTERED, PICTURED, IMAGED = "letters (an MLP of 128 units)", "digits (an MLP of 64)", "digits (a small CNN)"
ON = {
    "repeated": f"25 of 26 {LETTERED}, a root and its heir; single rows: {PICTURED}, one model",
    "size": f"the first of 26 {LETTERED}, a root and its heir; single rows: {PICTURED}, one model",
    "shift": f"class 3 of {IMAGED}, a root and its heir",
    "drift": f"class 3 of {PICTURED}, a root and ten heirs, one of another",
    "labels": f"class 3 of {IMAGED}, a root and its heir",
    "unequal": f"class 3 of {IMAGED}, a root and its heir",
    "parts": f"{IMAGED}, one model: class 3, digit 3 of a pair that makes a class, and rows drawn by the seed",
    "whole": "classes 3 and 8 of digits (an MLP of 16 units), one model",
    "strength": f"classes 3 and 8 of {IMAGED}, A and E of {LETTERED}; one model each",
    "place": f"classes 3 and 8 of {IMAGED}, A and E of {LETTERED}; one model each",
    "nets": "class 3 of digits, questions about places (LOC) of six kinds of texts; one model of each net",
}


def answer(result: Mapping[str, Any]) -> str:
    """The figure, the answer and its table, as they stand in a document beside the folder of figures."""
    name = result["question"]
    said = f"{ANSWERS[name](result['rows'])}\n\nOn {ON[name]}."
    return f"![{result['asks']}](figures/open_{name}.svg)\n\n{said}" + ("" if name == "repeated" else f" {SAID}")
