"""Put the numbers of `results/*.json` into the documents: tables between `<!-- name -->` and `<!-- /name -->`, and prose.

Fails when a number in prose is in no result (see `prose.py`).
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from bench_apply import table as apply
from bench_plan import table as plans
from bench_runtime import table as runtime
from bench_store import table as stored
from common import RESULTS
from compare_methods import STUDIES
from depth_probe import table as depth
from evidence_leaks import table as leaks
from figures import draw
from hospitals_classes import table as hospitals
from inherited import clocks, table as inherited_table
from kept import read
from open_questions_answers import ANSWERS, answer
from panels import PANELS
from poisoned_evidence import table as poisoned
from prose import filled
from reproduce_fishermask import shares as masked_shares
from reproduce_fiun import PAPER as FIUN_PAPER, larger
from reproduced import pooled_percent, table as reproduced
from rows_and_sites import table as rows_and_sites
from scale import table as scale
from steer_ablation import table as ablation

from fedunlearn.compare import about, legend, overview, percent
from fedunlearn.compare.cells import RETRAINED
from fedunlearn.compare.origin import joined

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "simulations" / "README.md")
LONG = 23  # lines of a table that is folded, head and all
RIVALS = {
    "ours": "fedunlearn",
    "expectation": "fedunlearn, ten labels",
    "backpack": "BackPACK",
    "opacus": "Opacus",
    "torch.func": "torch.func",
    "loop": "one at a time",
}


def where(result: dict[str, Any]) -> str:
    """Commit, host and versions, in a line under a table."""
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    return f"\n\nCommit {result['commit']}; {result['host']}; {versions}."


def bench(result: dict[str, Any]) -> str:
    """One line a net; a rival that cannot handle it has a dash."""
    rows = {(r["net"], r["method"]): r for r in result["rows"]}
    nets = {r["net"]: r["batch"] for r in result["rows"]}
    lines = [
        f"| net, batch | {' | '.join(RIVALS.values())} | error, ours | error, loop | peak MB, ours |",
        "|---" * (len(RIVALS) + 4) + "|",
    ]
    for net, size in nets.items():
        ratios = [_ratio(rows[net, m]) for m in RIVALS]
        ours, loop = rows[net, "ours"], rows[net, "loop"]
        lines.append(
            f"| {net}, {size} | {' | '.join(ratios)} | {ours['error']:.0e} | {loop['error']:.0e} | {ours['peak_mb']:.0f} |"
        )
    failed: dict[str, list[str]] = {}
    for (net, method), row in rows.items():
        if "failed" in row:
            failed.setdefault(RIVALS[method], []).append(f"{net} ({row['failed'].split(':')[0]})")
    said = "; ".join(f"{rival}: {', '.join(nets)}" for rival, nets in failed.items())
    return "\n".join(lines) + f"\n\nA dash: it refuses or fails ({said}). Wrong: silently off by more than 1 %." + where(result)


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return "-"
    return f"{row['ratio']:.2f}" + (" **wrong**" if row["error"] > 0.01 else "")


def summary(result: dict[str, Any]) -> str:
    """All heirs that must forget, pooled over seeds: one line a class and method."""
    lines = [
        "| class | method | accepted | worst heir: left | worst heir: lost on the rest | least known before |",
        "|---|---|---|---|---|---|",
    ]
    absent = [r for r in result["rows"] if r["target"] == "absent"]
    for forget, method in sorted({(r["class"], r["method"]) for r in absent}):
        of = [r for r in absent if (r["class"], r["method"]) == (forget, method)]
        heirs = [[r for r in of if r["name"] == n] for n in dict.fromkeys(r["name"] for r in of)]
        left = max(pooled_percent(h, "forgotten_after") for h in heirs)
        lost = max(pooled_percent(h, "retained_before") - pooled_percent(h, "retained_after") for h in heirs)
        before = min(pooled_percent(h, "forgotten_before") for h in heirs)
        accepted = sum(r["status"] == "committed" for r in of)
        lines.append(f"| {forget} | {method} | {accepted} of {len(of)} | {left:.1f} % | {lost:.1f} points | {before:.1f} % |")
    return "\n".join(lines) + where(result)


def inherited(*results: dict[str, Any]) -> str:
    """All families, one table."""
    return inherited_table([row for r in results for row in r["rows"]]) + where(joined(results))


def inherited_clocks(*results: dict[str, Any]) -> str:
    """What unlearning all families took."""
    return clocks([row for r in results for row in r["rows"]]) + where(joined(results))


def compared(result: dict[str, Any]) -> str:
    """The overview of a comparison, and what must be said with it; why heirs were held back stands in its rows."""
    return "\n\n".join([overview(result).markdown(), *about(result)])


def compared_legend(*results: dict[str, Any]) -> str:
    """What the columns of all comparisons mean, once."""
    return "\n".join(f"- {line}" for line in dict.fromkeys(line for result in results for line in legend(result)))


def brief(result: dict[str, Any]) -> str:
    """A line a method: how many heirs the gate held back, and its worst models."""
    lines = [
        "| method | accepted | left | worst model, class: left | lost on the rest | worst model, class: lost |",
        "|---" * 6 + "|",
    ]
    for s in result["summary"]:
        heirs = sum(s["outcomes"].values())
        accepted = "-" if s["method"] == RETRAINED else f"{s['outcomes'].get('committed', 0)} of {heirs}"
        worst, lost = (f"{s[k]['name']}: {percent(s[k]['value'])}" for k in ("worst", "worst_lost"))
        name = f"{s['method']}{' (simulation only)' if s['simulation'] else ''}"
        lines.append(
            f"| {name} | {accepted} | {percent(s['left']['value'])} | {worst} | {percent(s['lost']['value'])} | {lost} |"
        )
    return "\n".join(lines) + where(result)


def on_gpu(result: dict[str, Any]) -> str:
    """FIUn's cells on a GPU, those included that were not run; what is said of the paper is said as it is now."""
    now = result | {"switches": dict(FIUN_PAPER.switches)}
    return reproduced(now, [cell.name for cell in larger()]) + where(result)


PAPERS = ("fiun", "ssd", "lfssd")
TABLES: dict[str, tuple[str, Callable[..., str]]] = {  # name -> the result files (a pattern), and what is made of them
    "hospitals_classes": ("hospitals_classes", lambda result: hospitals(result["rows"]) + where(result)),
    "hospitals_summary": ("hospitals_classes", summary),
    "steer_ablation": ("steer_ablation", lambda result: ablation(result["rows"]) + where(result)),
    "depth_probe": ("depth_probe", lambda result: depth(result["rows"]) + where(result)),
    "poisoned_evidence": ("poisoned_evidence", lambda result: poisoned(result["rows"], "fiun") + where(result)),
    "poisoned_steer": ("poisoned_evidence", lambda result: poisoned(result["rows"], "steer") + where(result)),
    "rows_and_sites": ("rows_and_sites", lambda result: rows_and_sites(result["rows"]) + where(result)),
    "evidence_leaks": ("evidence_leaks", lambda result: leaks(result["rows"]) + where(result)),
    "compare_hospitals": ("compare_hospitals", compared),
    "compare_brief": ("compare_hospitals", brief),
    "compare_legend": ("compare_*", compared_legend),
    **{f"reproduce_{p}": (f"reproduce_{p}", lambda result: reproduced(result) + where(result)) for p in PAPERS},
    "reproduce_fishermask": (
        "reproduce_fishermask",
        lambda result: f"{reproduced(result)}\n\n{masked_shares(result['rows'])}" + where(result),
    ),
    "reproduce_fiun_gpu": ("reproduce_fiun_gpu", on_gpu),
    **{f"compare_{s}": (f"compare_{s}", compared) for s in STUDIES if s != "hospitals"},
    **{f"open_{n}": (f"open_{n}", lambda result: answer(result) + where(result)) for n in ANSWERS},
    "bench_importance": ("bench_importance_cpu", bench),
    "bench_importance_gpu": ("bench_importance_gpu", bench),
    "bench_plan": ("bench_plan_cpu", lambda result: plans(result) + where(result)),
    "bench_runtime": ("bench_runtime_cpu", lambda result: runtime(result) + where(result)),
    "bench_apply": ("bench_apply_cpu", lambda result: apply(result) + where(result)),
    "scale": ("scale_cpu", lambda result: scale(result) + where(result)),
    **{f"bench_store_{n}": (f"bench_store_cpu_{n}_cores", lambda result: stored(result) + where(result)) for n in (2, 16)},
    "inherited": ("inherited_*", inherited),
    "inherited_clocks": ("inherited_*", inherited_clocks),
}


def drawn(name: str) -> list[dict[str, Any]]:
    """The rows that a figure is made from: those of the table of its name; of a comparison, its summary."""
    found: Iterable[dict[str, Any]] = map(read, sorted(RESULTS.glob(f"{TABLES[name][0]}.json")))
    return [row for result in found for row in result.get("summary") or result["rows"]]


def folded(block: str) -> str:
    """A block whose long tables are to be opened by a click."""

    def fold(table: re.Match[str]) -> str:
        rows = table[0].rstrip("\n").count("\n") - 1  # but for the head and the rule below it
        return f"<details><summary>A table of {rows} lines</summary>\n\n{table[0].rstrip()}\n\n</details>\n"

    return re.sub(rf"(?:^\|.*(?:\n|\Z)){{{LONG},}}", fold, block, flags=re.M).rstrip("\n")


def _between(marks: re.Match[str], block: str) -> str:
    return f"{marks[1]}{block}\n{marks[2]}"


def main() -> None:
    texts, blocks = {document: document.read_text() for document in DOCUMENTS}, dict[str, str]()
    for name, (result, make) in TABLES.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        for document in (d for d, text in texts.items() if mark.search(text)):
            if name not in blocks:
                found = [read(path) for path in sorted(RESULTS.glob(f"{result}.json"))]
                blocks[name] = make(*found) if found else "**Not run.**"
            texts[document] = mark.sub(partial(_between, block=folded(blocks[name])), texts[document])
    whole = {document: filled(text, blocks) for document, text in texts.items()}
    for document, text in whole.items():
        document.write_text(text)
    for name in PANELS:
        if rows := drawn(name):
            draw(name, PANELS[name](rows))


if __name__ == "__main__":
    main()
