"""Does any edit forget below the last layer? Linear probe and relearning, beside the logit mask and the retrained family.

A small MLP and a small CNN on digits, three seeds: a root that is trained on the class, an increment, a federation of it and a
transfer child that never saw it. Each edit acts on all of them: `steer` on the last layer, on the last two, and on all; and
closed-form edits of all hidden layers that are tried here only, with `rewrite` for the outputs:

R1      every layer maps the class's mean input to what it makes of the kept classes' means, weighted as the root's own output
        without the class would (W += W (m_x - m_f) (A^-1 m_f)' / (m_f' A^-1 m_f), A of the heir's own data); or half of it
erase   a layer's outputs lose the direction in which the class's mean differs from the heir's own, oblique to their covariance
        (the mean map of LEACE, Belrose et al. 2023, arXiv 2306.03819, for one class)

Nothing of these is tuned. The other methods of the menu that change hidden layers act as they come, whether or not the gate
accepts what they do. The probe learns on calibration rows with the class among them and is judged on test rows; `back` is
after how many steps of fine-tuning on the heir's own retained rows the class is recognised as often as 95 % of before.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import arguments, finish, origin
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.evaluation.features import features
from fedunlearn.evaluation.outputs import logits
from fedunlearn.evaluation.probe import linear_probe
from fedunlearn.evaluation.relearn import FRACTION, Tuning, relearn
from fedunlearn.importance import measure
from fedunlearn.lineage import Request
from fedunlearn.methods import Case, Evidence, LogitMask, make
from fedunlearn.methods.steer import DEEP
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.runtime.place.worker import Worker
from fedunlearn.scenario import Scenario, reference, train, workers
from fedunlearn.scenario.files import parse
from fedunlearn.tensors import Head

FORGET = "3"
NETS = {
    "mlp": ({"name": "mlp", "hidden": 64}, "body.3,head"),
    "cnn": ({"name": "cnn", "channels": 8}, "body.7,head"),
}
OTHERS = ("fiun", "ssd", "lfssd", "fisher_mask", "activation_mask", "damp", "fisher_noise", "gradient_ascent", "distil")
TUNING = Tuning(steps=200, every=5)
Inputs = dict[str, Tensor]  # by weight of a layer: second moment of its inputs, whose last column is their mean


def scenario_of(net: str, seed: int) -> Scenario:
    """Root, increment, federation, transfer."""
    bare = {site: [int(FORGET)] for site in ("ward", "clinic")}
    models = {
        "root": {"born": "incremental", "site": "depot", "epochs": 12},
        "increment": {"born": "incremental", "from": "root", "site": "ward", "epochs": 3, "lr": 0.01},
        "federation": {"born": "federated", "from": "increment", "clients": ["ward", "clinic"], "rounds": 2, "lr": 0.01},
        "transfer": {"born": "transfer", "from": "federation", "site": "clinic", "head": ["2", "4", "6", "8"]},
    }
    data = {"set": "digits", "shards": "iid", "seed": seed, "without": bare}
    return parse(
        {"name": f"depth-{net}", "seed": seed, "data": data, "net": NETS[net][0], "models": models, "requests": {}}, net
    )


def one(net: str, seed: int, models: tuple[str, ...]) -> list[dict[str, Any]]:
    """One family: every model as it is, masked, retrained and edited."""
    scenario, request, rows = scenario_of(net, seed), Request(classes=(FORGET,)), []
    with tempfile.TemporaryDirectory() as folder:
        family = train(scenario, Path(folder) / "trained")
        twin = reference(family, scenario, request)
        here = workers(scenario, family)
        held = here["depot"].data.held_out
        found = {name: {"before": _net(family, here, name), "retrained": _net(twin, here, name)} for name in models}
        for name in (n for n in models if n != "transfer"):
            of, head = found[name]["before"], _head(family, name)
            masked = LogitMask().edit(of.state_dict(), Case((), Evidence(), head, (FORGET,)), {})
            found[name]["logit mask"] = load(deepcopy(of), masked).eval()
        for edit, method, layers in (
            ("steer, last", "steer", "last"), ("steer, last two", "steer", NETS[net][1]), ("steer, all", "steer", "all"),
            ("rewrite", "rewrite", None), *((name.replace("_", " "), name, None) for name in OTHERS),
        ):  # fmt: skip
            copied = Family.open(Path(shutil.copytree(family.folder, Path(folder) / "copy")))
            there = workers(scenario, copied)
            record = unlearn(
                copied, request, make(method, {"layers": layers} if layers else {}), InProcess(there, simulation=True)
            )
            for m in record.facts["models"]:
                if m["name"] in models and m["version_after"] != m["version_before"]:
                    found[m["name"]][edit] = _net(copied, there, m["name"], m["version_after"])
            shutil.rmtree(copied.folder)
        told = evidence(_net(family, here, "root"), _head(family, "root"), here["depot"].data.training("main"))
        for name in models:
            own = _own(family, here, name).without([FORGET])
            start = found[name].get("rewrite", found[name]["before"])
            found[name] |= hidden(start, _head(family, name), own, told)
        for name in models:
            own, head = _own(family, here, name).without([FORGET]), _head(family, name)
            rows += [{"net": net, "seed": seed, "model": name, **r} for r in judged(found[name], head, own, held)]
    return rows


def evidence(root: nn.Module, head: Head, rows: Rows) -> dict[str, tuple[Tensor, Tensor]]:
    """What R1's root sends: by layer, the class's mean input and the kept classes' means, weighted by its output without it."""
    means = {c: _moments(root, head, rows.of([c])) for c in rows.counts()}
    out = logits(root, rows.of([FORGET])).double()
    out[:, head.classes.index(FORGET)] = -torch.inf
    share = out.softmax(1).mean(0)
    layers = means[FORGET]
    mixed = {n: sum((share[head.classes.index(c)] * m[n][:, -1] for c, m in means.items() if c != FORGET), torch.zeros(()))
             for n in layers}  # fmt: skip
    return {n: (m[:, -1], mixed[n] / mixed[n][-1]) for n, m in layers.items()}


def hidden(net: nn.Module, head: Head, own: Rows, told: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, nn.Module]:
    """Edits of hidden layers of one model; its outputs are as they come."""
    weights, moments = net.state_dict(), _moments(net, head, own.for_head(head.classes))
    below = [n for n in moments if n not in head.names and n in told]
    rewritten, half, erased = dict(weights), dict(weights), dict(weights)
    for name in below:
        bias = name.removesuffix("weight") + "bias"
        a, (m, x) = _ridged(moments[name]), told[name]
        w = torch.cat([weights[name].flatten(1), weights[bias][:, None]], 1).double()
        way = torch.linalg.solve(a, m)
        step = torch.outer(w @ (x - m), way) / (m @ way)
        _put(rewritten, name, bias, w + step)
        _put(half, name, bias, w + step / 2)
        mean = w @ moments[name][:, -1]
        spread = _ridged(w @ moments[name] @ w.T - torch.outer(mean, mean))
        apart = w @ m - mean
        across = torch.linalg.solve(spread, apart)
        ones = torch.zeros(w.shape[1], dtype=torch.float64)
        ones[-1] = 1
        _put(erased, name, bias, w - torch.outer(apart, across @ (w - torch.outer(mean, ones))) / (apart @ across))
    edits = {"R1": rewritten, "half of R1": half, "erase": erased}
    return {edit: load(deepcopy(net), weights).eval() for edit, weights in edits.items()}


def judged(nets: Mapping[str, nn.Module], head: Head, own: Rows, held: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """A line a net: outputs, probe, relearning."""
    calibration, test = held["calibration"], held["test"]
    watch, rest = test.for_head(head.classes).of([FORGET]), test.for_head(head.classes).without([FORGET])
    known = accuracy(nets["before"], watch)
    found, probes = [], {}
    for edit, net in nets.items():
        below = b"".join(t.numpy().tobytes() for n, t in net.state_dict().items() if n not in head.names)
        seen = [features(net, head, rows) for rows in (calibration, test)]
        assert seen[0] is not None
        assert seen[1] is not None
        if below not in probes:  # edits of the last layer alone share their features
            probes[below] = linear_probe(seen[0], seen[1])
        probe = probes[below]
        right, others = probe.of([FORGET]), probe.of([c for c in set(probe.labels) if c != FORGET])
        row = {"edit": edit, "rows": len(right), "rows_rest": len(rest), "forgotten": accuracy(net, watch),
               "retained": accuracy(net, rest), "probe": sum(right) / len(right), "probe_rest": sum(others) / len(others),
               "back": None, "cap": TUNING.steps}  # fmt: skip
        if known:
            try:
                row["back"] = relearn(net, own.for_head(head.classes), watch, FRACTION * known, TUNING, to_the_end=False).steps
            except InputError as error:
                row["failed"] = str(error)
        found.append(row)
    return found


def _moments(net: nn.Module, head: Head, rows: Rows) -> Inputs:
    """Second moments of inputs, one a position: a convolution has many, and the last entry of an input, its bias's, is 1."""
    found = measure(net, rows.x, head=head, statistic="moment").mean("moment") if len(rows) else {}
    return {name: moment / moment[-1, -1] for name, moment in found.items()}


def _ridged(moment: Tensor) -> Tensor:
    return moment + DEEP * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


def _put(weights: dict[str, Tensor], name: str, bias: str, found: Tensor) -> None:
    weights[name] = found[:, :-1].reshape(weights[name].shape).to(weights[name].dtype)
    weights[bias] = found[:, -1].to(weights[bias].dtype)


def _net(family: Family, here: Mapping[str, Worker], name: str, version: str | None = None) -> nn.Module:
    home = family.lineage[name].home
    found = family.store(home).read(version or family.heads[name])
    return load(here[home].make_net(len(found.head.classes), found.net), found.weights).eval()


def _head(family: Family, name: str) -> Head:
    return family.store(family.lineage[name].home).read(family.heads[name]).head


def _own(family: Family, here: Mapping[str, Worker], name: str) -> Rows:
    return joined([here[s.site].data.training(s.name) for s in family.lineage.own(name)])


def table(rows: list[dict[str, Any]]) -> str:
    """A line a net, model and edit, seeds pooled; in % and points. Residual: the probe's excess over the retrained model's."""
    columns = ("net", "model", "edit", "left", "lost on the rest", "probe", "residual", "of the mask's", "probe: rest", "back",
               "AIN >= 0.5")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for net, model, edit in sorted(dict.fromkeys((r["net"], r["model"], r["edit"]) for r in rows), key=_place(rows)):
        cell, before, again = ([r for r in rows if (r["net"], r["model"], r["edit"]) == (net, model, e)]
                               for e in (edit, "before", "retrained"))  # fmt: skip
        residual, origin_ = (_mean(c, "probe") - _mean(again, "probe") for c in (cell, before))
        able = cell[0]["forgotten"] is not None
        pairs = [(r, a) for r, a in zip(cell, again, strict=True) if (r["back"], a["back"]) != (None, None)]
        told = [_steps(r) >= 0.5 * _steps(a) for r, a in pairs]
        back = ", ".join("never" if r["back"] is None else str(r["back"]) for r in cell) if able else "-"
        left, lost = (f"{_mean(cell, 'forgotten'):.1f}" if able else "-", _mean(before, "retained") - _mean(cell, "retained"))
        share = f"{residual / origin_:.2f}" if origin_ > 1 else "-"
        numbers = (
            left,
            f"{lost:.1f}",
            f"{_mean(cell, 'probe'):.1f}",
            f"{residual:+.1f}",
            share,
            f"{_mean(cell, 'probe_rest'):.1f}",
        )
        slow = f"{sum(told)} of {len(told)}" if able and told else "-"  # where neither ever came back, nothing is told
        lines.append(f"| {net} | {model} | {edit} | {' | '.join(numbers)} | {back} | {slow} |")
    return "\n".join(lines)


def _steps(row: dict[str, Any]) -> int:
    return int(row["cap"] if row["back"] is None else row["back"])


def _place(rows: list[dict[str, Any]]) -> Any:
    order = list(dict.fromkeys((r["net"], r["model"]) for r in rows))
    edits = list(dict.fromkeys(r["edit"] for r in rows))
    return lambda key: (order.index(key[:2]), edits.index(key[2]))


def _mean(rows: list[dict[str, Any]], what: str) -> float:
    weight = "rows_rest" if what in ("retained", "probe_rest") else "rows"
    return float(100 * sum((r[what] or 0) * r[weight] for r in rows) / sum(r[weight] for r in rows))


def main() -> None:
    args = arguments(__doc__)
    cells = [(n, s) for n in NETS for s in (0, 1, 2)] if args.size == "cpu" else [("mlp", 0)]
    models = ("root", "increment", "federation", "transfer") if args.size == "cpu" else ("federation",)
    start, rows = origin(), []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for (net, seed), of in zip(cells, pool.map(one, *zip(*cells, strict=True), [models] * len(cells)), strict=True):
            print(f"{net}, seed {seed}", file=sys.stderr)
            rows += of
    result = {"what": __doc__, "size": args.size, **start, "rows": rows}
    finish(args, "depth_probe", result, lambda: table(rows))


if __name__ == "__main__":
    main()
