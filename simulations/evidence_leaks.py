"""What does the evidence that a site sends tell of its rows, and what do clipping and noise change?

Digits; north and south train one model, north sends evidence, the attacker is the coordinator: it has the model, all of south's
rows, and the very rows that it asks about. Three questions, at every setting of a site's `evidence: {clip, noise}`:

member   Is this row among the n that the evidence is of? Against rows of the same class that the model was trained on as well.
         Attacks that look at one row at a time, knowing n, clip and noise: `filter`, the log likelihood ratio of normal
         entries, their mean and (shrunk) spread learned on half of south's rows of the class, standardised by the other half;
         `cosine`; and, of squares, `bound`: no entry of a sum of squares is below any row's own, so that one entry can clear a
         row. And one that has all rows of the class at hand, `pool`: which of them add up to it (ridge regression of the
         evidence on all of them, 0 or 1 wanted of each).
labels   How many of the n rows are of each class, for requests that name none? Ridge regression from the head's bias, or from
         the whole last layer, learned on mixtures of south's rows; the error is the L1 distance of histograms (0 to 2), the
         guess is that all classes are alike.
cost     What is left of a class and lost on the rest when both sites send no better evidence than that, for `steer` and FIUn.

Seeds are pooled (a class a seed for the cost, two for membership); intervals are over rows, or over evidence for labels.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, finish, origin
from evidence_attacks import attacks, limited, mixed, tamed
from reproduced import pooled_percent
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedunlearn.compare import pooled
from fedunlearn.data import Rows, Selection
from fedunlearn.evaluation.intervals import over_seeds
from fedunlearn.evaluation.membership import verdict
from fedunlearn.importance.losses import Loss, loss_of
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, Method, Steer
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Worker, unlearn
from fedunlearn.runtime.place.guard import OPEN, Guard
from fedunlearn.runtime.tasks import Fetched, Measure
from fedunlearn.scenario import Scenario, train, workers
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.sources import Sending

FORGET = ("0", "3", "8")  # a seed each; the clinic lacks all of them
NETS = {"mlp": ({"name": "mlp", "hidden": 64}, 2), "cnn": ({"name": "cnn", "channels": 8}, 5)}  # and epochs a round
GUARDS = (OPEN, Guard(clip=1.0), Guard(clip=1.0, noise=0.3), Guard(clip=1.0, noise=2.0))
KINDS = (("squares", "labels"), ("sum", "masked"))
LABELLED = (("squares", "labels"), ("sum", "labels"))
KEPT = ("name", "forgotten_before", "forgotten_after", "retained_before", "retained_after", "rows_forgotten", "rows_retained",
        "status")  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much is tried.

    Args:
        nets: of `NETS`.
        seeds: a family each.
        guards: what north does to its evidence.
        classes: how many, for membership.
        draws: rows in the evidence (0: all of the class) -> evidence drawn.
        mixed: the same, of rows of all classes.
        learned: mixtures that the attacker makes of south's rows.
        methods: whose cost is taken.
    """

    nets: tuple[str, ...]
    seeds: tuple[int, ...]
    guards: tuple[Guard, ...]
    classes: int
    draws: Mapping[int, int]
    mixed: Mapping[int, int]
    learned: int
    methods: Mapping[str, Method]


SMALL = Size(("mlp",), (0,), (OPEN, GUARDS[2]), 1, {1: 6}, {1: 4}, 60, {"steer": Steer()})
WHOLE = Size(
    tuple(NETS), (0, 1, 2), GUARDS, 2, {1: 6, 4: 3, 16: 2, 0: 1}, {1: 8, 16: 4, 64: 2}, 300, {"steer": Steer(), "fiun": FIUn()}
)


@dataclass(frozen=True)
class Place:
    """What is known of one family: its model, and the rows of both sites."""

    worker: Worker
    sent: Fetched
    version: str
    net: nn.Module
    north: Rows
    south: Rows

    def evidence(self, kind: tuple[str, str], layers: str, keys: list[str], masked: tuple[str, ...], guard: Guard) -> Tensor:
        """The mean that north sends, as one vector."""
        selection = Selection(samples=tuple(f"main/{k}" for k in keys))
        task = Measure("north", self.version, "main", kind[0], layers, selection, (), self.sent, kind[1], masked)
        found = replace(self.worker, guard=guard).handle(task).importance.mean(kind[0])  # type: ignore[union-attr]
        return torch.cat([found[n].flatten() for n in sorted(found)])

    def gradients(self, rows: Rows, loss: Loss, layers: str) -> Tensor:
        """Of every row by itself [N, parameters], in the order of the evidence."""
        chosen = {n: p.detach() for n, p in self.net.named_parameters() if layers == "all" or n in self.sent.head.names}

        def value(free: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return sum((t.sum() for t in loss.terms(functional_call(self.net, free, (x[None],)), y[None], 1)), torch.zeros(()))

        found = vmap(grad(value), (None, 0, 0))(chosen, rows.x, rows.y)
        return torch.cat([found[n].flatten(1) for n in sorted(found)], 1).double()


def plain(net: str, seed: int) -> dict[str, Any]:
    """The family."""
    return {
        "name": f"leaks-{net}",
        "seed": seed,
        "data": {"set": "digits", "shards": "iid", "seed": seed, "without": {"clinic": list(FORGET)}},
        "net": NETS[net][0],
        "models": {
            "shared": {
                "born": "federated",
                "clients": ["north", "south"],
                "rounds": 3,
                "epochs": NETS[net][1],
                "home": "server",
            },
            "child": {"born": "incremental", "from": ["shared"], "site": "clinic"},
        },
    }


def place_of(scenario: Scenario, family: Family) -> Place:
    """Open it."""
    held, version = workers(scenario, family), family.heads["shared"]
    found = held["server"].store.read(version)
    net = load(held["north"].make_net(len(found.head.classes), ""), found.weights).eval().requires_grad_(False)
    north, south = (held[s].data.all("main").for_head(found.head.classes) for s in ("north", "south"))
    return Place(held["north"], Fetched(found.weights, found.head, found.net), version, net, north, south)


def member(place: Place, guard: Guard, size: Size, seed: int) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """((statistic, layers, n, attack), scores of members, scores of others), evidence by evidence."""
    for kind in KINDS:
        for layers in ("last", "all"):
            for c in FORGET[: size.classes]:
                draw = np.random.default_rng([seed, int(c)])
                ours, theirs = place.north.of([c]), place.south.of([c])
                index = place.sent.head.classes.index(c)
                loss = loss_of(kind[1], (index,) if kind[1] == "masked" else ())
                mine, other = (limited(place.gradients(r, loss, layers), kind[0], guard) for r in (ours, theirs))
                known, judged = other[::2], other[1::2]
                for number, times in size.draws.items():
                    n = number or len(ours)
                    for _ in range(times):
                        chosen = draw.permutation(len(ours))[:n]
                        masked = (c,) if kind[1] == "masked" else ()
                        told = place.evidence(kind, layers, [ours.keys[i] for i in sorted(chosen)], masked, guard)
                        bound = (guard.clip or 0.0) ** (2 if kind[0] == "squares" else 1)
                        within = torch.zeros(len(ours), dtype=torch.bool)
                        within[torch.from_numpy(chosen)] = True
                        rows = torch.cat([mine[within], mine[~within], judged])
                        for attack, score in attacks(
                            told, n, rows, known, guard.noise * bound / n, kind[0] == "squares"
                        ).items():
                            usual = score[-len(judged) :]
                            even = (score - usual.median()) / (usual - usual.median()).abs().median().clamp(min=1e-300)
                            even = even if attack == "filter" else score
                            yield (kind[0], layers, number, attack), even[:n].numpy(), even[n:].numpy()


def labels(place: Place, guard: Guard, size: Size, seed: int) -> Iterator[tuple[tuple[Any, ...], tuple[float, float]]]:
    """((statistic, part, n), (error, error of the guess)), evidence by evidence."""
    classes = len(place.sent.head.classes)
    for kind in LABELLED:
        added, draw = (
            limited(place.gradients(place.south, loss_of(kind[1]), "last"), kind[0], guard),
            np.random.default_rng(seed),
        )
        deviation = guard.noise * (guard.clip or 0.0) ** (2 if kind[0] == "squares" else 1)
        for n, times in size.mixed.items():
            drawn = [mixed(place.south, n, classes, draw) for _ in range(size.learned)]
            seen = np.stack([added[chosen].mean(0).numpy() for chosen, _ in drawn])
            seen += draw.normal(0, deviation / n, seen.shape)
            usual = np.abs(seen).mean(0) + 1e-3 * np.abs(seen).mean() + 1e-30
            asked = [mixed(place.north, n, classes, np.random.default_rng([seed, n, k])) for k in range(times)]
            keys = [[place.north.keys[i] for i in sorted(chosen)] for chosen, _ in asked]
            told = tamed(np.stack([place.evidence(kind, "last", held, (), guard).numpy() for held in keys]), usual)
            for part, which in (("bias", slice(0, classes)), ("last", slice(None))):  # "head.bias" comes before the weight
                attack = RidgeCV(10.0 ** np.arange(-2, 6)).fit(tamed(seen, usual)[:, which], [share for _, share in drawn])
                for share, (_, truth) in zip(attack.predict(told[:, which]).clip(0), asked, strict=True):
                    error = float(np.abs(share / max(share.sum(), 1e-12) - truth).sum())
                    yield (kind[0], part, n), (error, float(np.abs(1 / classes - truth).sum()))


def cost(
    scenario: Scenario, trained: Path, guard: Guard, forget: str, methods: Mapping[str, Method]
) -> Iterator[dict[str, Any]]:
    """What forgetting a class does with such evidence."""
    sending = Sending(clip=guard.clip, noise=guard.noise)
    told = scenario.model_copy(update={"evidence": {"north": sending, "south": sending}})
    for name, method in methods.items():
        family = Family.open(Path(shutil.copytree(trained, trained.parent / "copy")))
        record = unlearn(family, Request(classes=(forget,)), method, InProcess(workers(told, family)))
        yield from ({"method": name, **{k: m[k] for k in KEPT}} for m in record.facts["models"])
        shutil.rmtree(family.folder)


def measured(size: Size) -> list[dict[str, Any]]:
    """All rows of the table."""
    scores: dict[tuple[Any, ...], tuple[list[Any], list[Any]]] = {}
    errors: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    costs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for net in size.nets:
        for seed in size.seeds:
            print(f"{net}, seed {seed}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                scenario, trained = parse(plain(net, seed), net), Path(folder) / "trained"
                place = place_of(scenario, train(scenario, trained))
                for guard in size.guards:
                    for key, inside, outside in member(place, guard, size, seed):
                        held = scores.setdefault((net, guard, *key), ([], []))
                        held[0].append(inside)
                        held[1].append(outside)
                    for key, error in labels(place, guard, size, seed):
                        errors.setdefault((net, guard, *key), []).append(error)
                    for row in cost(scenario, trained, guard, FORGET[seed], size.methods):
                        costs.setdefault((net, guard, row["method"], row["name"]), []).append(row)
    rows = []
    for (net, guard, statistic, layers, n, attack), (inside, outside) in scores.items():
        found = verdict(np.concatenate(inside), np.concatenate(outside)).to_json()
        rows.append({"what": "member", "net": net, "clip": guard.clip, "noise": guard.noise, "statistic": statistic,
                     "layers": layers, "n": n, "attack": attack, "auc": found["auc"], "tpr": found["tpr"]["0.01"],
                     "members": found["members"], "others": found["others"]})  # fmt: skip
    for (net, guard, statistic, part, n), pairs in errors.items():
        made, guessed = zip(*pairs, strict=True)
        rows.append({"what": "labels", "net": net, "clip": guard.clip, "noise": guard.noise, "statistic": statistic,
                     "part": part, "n": n, "error": over_seeds(made).to_json(), "guess": float(np.mean(guessed))})  # fmt: skip
    for (net, guard, method, heir), of in costs.items():
        lost = (pooled_percent(of, "retained_before") - pooled_percent(of, "retained_after")) / 100
        rows.append({"what": "cost", "net": net, "clip": guard.clip, "noise": guard.noise, "method": method, "heir": heir,
                     "before": pooled(of, "forgotten_before", "rows_forgotten"),
                     "left": pooled(of, "forgotten_after", "rows_forgotten"), "lost": lost,
                     "accepted": sum(r["status"] == "committed" for r in of), "of": len(of)})  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Three tables, a column a setting: AUC of the better attack and its true positive rate; errors; left and lost."""
    settings = list(dict.fromkeys((r["clip"], r["noise"]) for r in rows))
    heads = ["as it is" if c is None else f"clip {c:g}, noise {s:g}" for c, s in settings]
    rule = "|---" * (4 + len(heads)) + "|"
    parts = [[f"| net | evidence | layers | rows | {' | '.join(heads)} |", rule]]
    asked = [r for r in rows if r["what"] == "member"]
    for key in dict.fromkeys((r["net"], r["statistic"], r["layers"], r["n"]) for r in asked):
        of = [r for r in asked if (r["net"], r["statistic"], r["layers"], r["n"]) == key]
        cells = [_attacked([r for r in of if (r["clip"], r["noise"]) == s]) for s in settings]
        parts[-1].append(f"| {key[0]} | {key[1]} | {key[2]} | {key[3] or 'all'} | {' | '.join(cells)} |")
    parts.append([f"| net | evidence | part | rows | guess | {' | '.join(heads)} |", f"{rule}---|"])
    asked = [r for r in rows if r["what"] == "labels"]
    for *named, guess in dict.fromkeys((r["net"], r["statistic"], r["part"], r["n"], r["guess"]) for r in asked):
        of = [r for r in asked if [r["net"], r["statistic"], r["part"], r["n"], r["guess"]] == [*named, guess]]
        cells = [f"{r['error']['value']:.2f}" for s in settings for r in of if (r["clip"], r["noise"]) == s]
        parts[-1].append(f"| {' | '.join(map(str, named))} | {guess:.2f} | {' | '.join(cells)} |")
    parts.append([f"| net | method | heir | before | {' | '.join(f'{h}: left, lost (accepted)' for h in heads)} |", rule])
    asked = [r for r in rows if r["what"] == "cost"]
    for key in dict.fromkeys((r["net"], r["method"], r["heir"], r["before"]) for r in asked):
        of = [r for r in asked if (r["net"], r["method"], r["heir"]) == key[:3]]
        cells = [
            f"{100 * r['left']:.1f}, {100 * r['lost']:.1f} ({r['accepted']} of {r['of']})"
            for s in settings for r in of if (r["clip"], r["noise"]) == s
        ]  # fmt: skip
        parts[-1].append(f"| {' | '.join(key[:3])} | {100 * key[3]:.1f} | {' | '.join(cells)} |")
    return "\n\n".join("\n".join(part) for part in parts)


def _attacked(of: list[dict[str, Any]]) -> str:
    """Of the best attack on one row at a time: AUC, its interval, true positives at 1 % false ones; and the AUC of `pool`."""
    best = max((r for r in of if r["attack"] != "pool"), key=lambda r: r["auc"]["value"])
    (pool,) = (r["auc"]["value"] for r in of if r["attack"] == "pool")
    auc, tpr = best["auc"], best["tpr"]
    rate = "-" if isinstance(tpr, str) else f"{100 * tpr['value']:.0f} %"
    return f"{auc['value']:.2f} ({auc['low']:.2f}-{auc['high']:.2f}), {rate}; {pool:.2f}"


def main() -> None:
    args = arguments(__doc__)
    result = {"what": __doc__, "size": args.size, **origin(), "rows": measured(WHOLE if args.size == "cpu" else SMALL)}
    finish(args, "evidence_leaks", result, lambda: table(result["rows"]))


if __name__ == "__main__":
    main()
