"""Families whose ledger says what we like: real shapes, invented numbers, no weights."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Lineage, Model, Request, Shard, discover
from fedunlearn.runtime import Family
from fedunlearn.runtime.books.record import row
from fedunlearn.store import Line

CLASSES = ("a", "b", "c")
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "</title></style><svg onload=alert(3)>",
    "{{ 7 * 7 }}{% raw %}",
    '=HYPERLINK("http://example.org")',
    "gnp.\u202efdp\u0007\u200b",
    "]]>--><!-- &amp; ünïcødé 模型",
    "long-" + "x" * 400,
)
HOMES = tuple(name.replace("/", "")[:200] for name in reversed(HOSTILE))  # a place becomes a folder


def invented(
    folder: Path,
    models: list[Model],
    request: Request,
    change: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda _: {},
    objections: list[dict[str, str]] | None = None,
    reason: str | None = None,
    accepted_untested: str | None = None,
) -> tuple[Family, Line]:
    """A family with one "unlearned" line; `change` says how each row of its record differs from one that went well."""
    family = Family(folder)
    lineage = Lineage(tuple(models), {m.home: CLASSES for m in models})
    family.write_lineage(lineage)
    family.ledger.append("trained", {"heads": {m.name: "0" * 64 for m in models if m.kept}, "models": len(models)})
    plan = discover(lineage, request)
    rows = []
    for heir in plan.heirs:
        plain = row(heir, lineage[heir.name], None, None, None, (), (), "committed", bool(request.classes), {})
        scores = {"forgotten_before": 0.9, "forgotten_after": 0.01, "retained_before": 0.95, "retained_after": 0.94}
        others = {"retrained_forgotten": 0.0, "retrained_retained": 0.96, "mask_retained": 0.95, "strength": {"alpha": 3.0}}
        named = {"version_before": "0" * 64, "version_after": f"{len(rows):064x}", "rows_forgotten": 50, "rows_retained": 400}
        plain |= scores | others | named
        rows.append({**plain, **change(plain)})
    facts = {
        "request": request.to_json(), "plan": plan.to_json(), "method": "fiun", "settings": {"alpha": "auto"},
        "precision": "float64", "gate": vars(Gate()), "models": rows, "objections": objections or [],
        "accepted_untested": accepted_untested, "absent": [],
    }  # fmt: skip
    cost = {
        "seconds": 1.5,
        "measure_seconds": 0.5,
        "rows_read": 10,
        "bytes_up": 2048,
        "traffic": {"north": {"up": 7, "down": 9}},
    }
    status = {s: {r["name"]: r["version_after"] for r in rows if r["status"] == s} for s in ("committed", "pending")}
    body = {
        "request": request.id, "heads": status["committed"], "pending": status["pending"], "reason": reason,
        "untouched": [r["name"] for r in rows if r["status"] == "untouched"],
        "exclusions": {"north": {"classes": ["a"], "samples": []}},
        "record": {"facts": facts, "cost": cost},
    }  # fmt: skip
    return family, family.ledger.append("unlearned", body)


def data(*classes: str, site: str = "north") -> tuple[Shard, ...]:
    return (Shard(site, "main", dict.fromkeys(classes, 10)),)


def many(number: int) -> list[Model]:
    """Rounds of retired clients, a star, a chain, a heap of random ones, and some that nothing reached."""
    chance = random.Random(1)
    models = []
    before: tuple[str, ...] = ()
    for r in range(4):
        clients = [
            Model(f"shared/r{r}/c{c}", f"c{c}", "federated", CLASSES, before, data("a", "b", site=f"c{c}"), False)
            for c in range(4)
        ]
        last = r == 3
        models += [
            *clients,
            Model(
                "shared" if last else f"shared/r{r}", "server", "federated", CLASSES, tuple(c.name for c in clients), (), last
            ),
        ]
        before = (models[-1].name,)
    models += [
        Model(f"cardiology-transfer-{i:04}", f"clinic-{i % 50}", "transfer", CLASSES, ("shared",), data("b"))
        for i in range(number // 2)
    ]
    parent = "shared"
    for i in range(number // 10):
        models.append(Model(f"increment-{i:04}", "east", "incremental", CLASSES, (parent,), data("b", "c", site="east")))
        parent = models[-1].name
    while sum(m.kept for m in models) < number - number // 10:
        name = f"ward-model-{len(models):05}"
        near = [m.name for m in models[-200:] if m.kept]
        models.append(
            Model(
                name,
                f"ward-{len(models) % 30}",
                chance.choice(("incremental", "transfer")),
                CLASSES,
                (chance.choice(near),),
                data("c"),
            )
        )
    while sum(m.kept for m in models) < number:
        models.append(Model(f"stranger-{len(models):05}", "west", "incremental", CLASSES, (), data("c", site="west")))
    return models


def result(before: str, after: str, tier: str = "full") -> dict[str, Any]:
    """A result of a tier in which the probe found residue; shapes are those of `evaluate`."""
    share = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 50}
    probe = {"kind": "ridge, penalty 1", "recovery": share, "by_class": {"a": share}, "rest": share}
    above = {"value": 0.3, "low": 0.2, "high": 0.4, "n": 50}
    curve = [[0, 0.0], [10, 0.4], [20, 0.9]]
    relearned = {"goal": 0.85, "steps": 20, "best": 0.9, "curve": curve}
    never = {"goal": 0.85, "steps": "never reached in 200 steps", "best": 0.1, "curve": [[0, 0.0], [200, 0.1]]}
    metrics = {
        "probe": {
            "before": probe | {"above_retrained": above},
            "after": probe | {"above_retrained": above},
            "retrained": probe,
        },
        "relearn_shots": {
            "before": relearned | {"ain": 0.5},
            "after": relearned | {"ain": "below 0.1: the retrained model never came to it in 200 steps"},
            "retrained": never,
        },
    }
    return {
        "tier": tier, "nets": ["before", "after", "retrained"], "rows": {"forgotten": 50}, "metrics": metrics,
        "not_measurable": {"backdoor": "nothing that is known of was planted"}, "seconds": {"probe": 0.5, "relearn_shots": 1.0},
        "version_before": before, "version_after": after,
    }  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Family, Line]:
    """root -> heir -> later, and a stranger; all went well."""
    models = [
        Model("root", "north", "incremental", CLASSES, (), data("a", "b")),
        Model("heir", "south", "incremental", CLASSES, ("root",), data("b", site="south")),
        Model("stranger", "west", "incremental", CLASSES, (), data("b", site="west")),
    ]
    return invented(tmp_path / "family", models, Request(classes=("a",)))
