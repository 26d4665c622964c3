"""What figures of benchmarks show, out of the rows of their results and nothing else."""

from collections.abc import Callable, Iterable

from figures import Dots, Lines, Panel, Span
from grouped import Row, each, where
from reproduced import Rows


def rivals(rows: Rows) -> list[Panel]:
    """Of the exact diagonal, time and memory; whoever cannot do it has no dot."""
    given = [r for r in rows if r["ratio"] is not None]
    of = {m: where(given, method=m) for m in each(given, "method")}
    return [
        Dots("", "time, of a plain pass forward and back", {m: {r["net"]: _turns(r["ratio"], r["ratios"]) for r in found}
                                                           for m, found in of.items()}, True),
        Dots("", "peak memory, MB", {m: {r["net"]: _turns(r["peak_mb"]) for r in found} for m, found in of.items()}, True),
    ]  # fmt: skip


def _turns(value: float, turns: Iterable[float] = ()) -> Span:
    found = [*turns] or [value]
    return Span(value, min(found), max(found))


def plans(rows: Rows) -> list[Panel]:
    """Time and memory of planning, a row a lineage."""
    named = [r | {"row": f"models: {r['models']:,}, roots: {r['roots']:,}, {r['drawn']}"} for r in rows]
    of = {who: where(named, who=who) for who in each(named, "who")}
    return [
        Dots("", x, {who: {r["row"]: _turns(r[key], r.get(all_, ())) for r in found} for who, found in of.items()}, log)
        for x, key, all_, log in (("seconds", "seconds", "all_seconds", True), ("peak memory, MB", "peak_mb", "", False))
    ]


def stored(rows: Rows) -> list[Panel]:
    """What the store writes and reads, as a share."""
    names = {f"{r['net']}, {r['outputs']} outputs": r for r in rows}
    told = {what: {n: _turns(r[what], r[f"{what}_ratios"]) for n, r in names.items()} for what in ("write", "read")}
    return [Dots("", "throughput, of safetensors alone", told)]


def carried(rows: Rows) -> list[Panel]:
    """What every backend adds; whoever was left out has no dot."""
    clocks: dict[str, Callable[[Row], Span]] = {
        "beyond the work itself, ms a heir": lambda r: _turns(r["extra_ms"], r["extras_ms"]),
        "start and first call, s": lambda r: _turns(r["start_s"] + r["first_s"]),
    }
    of = [r | {"row": f"{r['net']}, heirs: {r['heirs']:,}, places: {r['places']}"} for r in rows if "skipped" not in r]
    return [
        Dots("", x, {b: {r["row"]: make(r) for r in where(of, backend=b)} for b in each(of, "backend")}, True)
        for x, make in clocks.items()
    ]


def applied(rows: Rows) -> list[Panel]:
    """What editing and keeping takes, of a loop that does nothing else."""
    named = {{"all": "all layers", "last": "the last layer"}[r["layers"]]: r for r in rows}
    clocks: dict[str, Callable[[Row], Span]] = {
        "wall clock": lambda r: Span(r["ratio"], r["turns"][0], r["turns"][-1]),
        "processor time": lambda r: _turns(r["cpu_ratio"]),
    }
    return [
        Dots("", "time, of a plain loop", {clock: {n: make(r) for n, r in named.items()} for clock, make in clocks.items()})
    ]


def scale(rows: Rows) -> list[Panel]:
    """How everything grows."""
    return [
        Lines(title, "models", y, {k: {r["models"]: _turns(r[what]) for r in where(rows, sources=k)}
                                   for k in each(rows, "sources")}, "xy")
        for title, y, what in (
            ("one request", "seconds of one core", "seconds"),
            ("one request", "peak memory, MB", "peak_mb"),
            ("plan", "seconds", "plan_s"),
            ("ledger", "bytes more", "ledger_bytes"),
        )
    ]  # fmt: skip
