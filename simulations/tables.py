"""Put the numbers of `results/*.json` into the documents, between `<!-- name -->` and `<!-- /name -->`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_plan import table as plans
from bench_runtime import table as runtime
from common import RESULTS
from depth_probe import table as depth
from evidence_leaks import table as leaks
from hospitals_classes import table as hospitals
from inherited import table as inherited_table
from poisoned_evidence import table as poisoned
from steer_ablation import table as ablation

from fedunlearn.compare import notes, overview, pooled

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "simulations" / "README.md")
RIVALS = {"ours": "fedunlearn", "backpack": "BackPACK", "opacus": "Opacus", "torch.func": "torch.func", "loop": "one at a time"}


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
        left = 100 * max(pooled(h, "forgotten_after", "rows_forgotten") for h in heirs)
        lost = 100 * max(
            pooled(h, "retained_before", "rows_retained") - pooled(h, "retained_after", "rows_retained") for h in heirs
        )
        before = 100 * min(pooled(h, "forgotten_before", "rows_forgotten") for h in heirs)
        accepted = sum(r["status"] == "committed" for r in of)
        lines.append(f"| {forget} | {method} | {accepted} of {len(of)} | {left:.1f} % | {lost:.1f} points | {before:.1f} % |")
    return "\n".join(lines) + where(result)


def inherited(*results: dict[str, Any]) -> str:
    """All families, one table."""
    commits = sorted({r["commit"] for r in results})
    return inherited_table([row for r in results for row in r["rows"]]) + where({**results[0], "commit": ", ".join(commits)})


def compared(result: dict[str, Any]) -> str:
    """The overview of a comparison, and what must be said with it."""
    return "\n\n".join([overview(result).markdown(), *notes(result)])


TABLES: dict[str, tuple[str, Callable[..., str]]] = {  # name -> the result files (a pattern), and what is made of them
    "hospitals_classes": ("hospitals_classes", lambda result: hospitals(result["rows"]) + where(result)),
    "hospitals_summary": ("hospitals_classes", summary),
    "steer_ablation": ("steer_ablation", lambda result: ablation(result["rows"]) + where(result)),
    "depth_probe": ("depth_probe", lambda result: depth(result["rows"]) + where(result)),
    "poisoned_evidence": ("poisoned_evidence", lambda result: poisoned(result["rows"]) + where(result)),
    "evidence_leaks": ("evidence_leaks", lambda result: leaks(result["rows"]) + where(result)),
    "compare_hospitals": ("compare_hospitals", compared),
    "bench_importance": ("bench_importance_cpu", bench),
    "bench_plan": ("bench_plan_cpu", lambda result: plans(result) + where(result)),
    "bench_runtime": ("bench_runtime_cpu", lambda result: runtime(result) + where(result)),
    "inherited": ("inherited_*", inherited),
}


def main() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        for name, (result, make) in TABLES.items():
            mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
            if mark.search(text):
                found = make(*(json.loads(p.read_text()) for p in sorted(RESULTS.glob(f"{result}.json"))))
                text = mark.sub(lambda m, found=found: f"{m[1]}{found}\n{m[2]}", text)
        document.write_text(text)


if __name__ == "__main__":
    main()
