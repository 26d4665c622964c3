"""What the exact diagonal costs: ours, BackPACK, Opacus, torch.func and the one-at-a-time loop, on seven nets.

Ratios of process CPU time (wall time on a GPU) to one plain forward and backward pass of the same batch, all methods in turn
in one process, one thread; medians. `expectation` is ours of the true Fisher: all ten outputs stand in for the label, each by
its probability (FisherMask's quantity). `error` is the worst parameter's relative error against the loop in float64;
`peak_mb` is the growth of the peak resident memory (allocated memory on a GPU) in the method's first call in a fresh process.
The rivals come with `pip install --group bench`; a rival that cannot handle a net says so in `failed`.

Long because all rivals and nets stand side by side in one file.
"""

import argparse
import copy
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import keep, origin
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedunlearn.importance import measure
from fedunlearn.importance.losses import Own
from fedunlearn.importance.reference import loop
from fedunlearn.nets import build
from fedunlearn.tensors import Head
from fedunlearn.vision import torchvision

Sums = dict[str, Tensor]
CLASSES = 10
VMAP_ENTRIES = 32_000_000  # per-sample gradients that torch.func may hold at once


class Transformer(nn.Module):
    """Two encoder layers on 64 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 128)
        self.places = nn.Parameter(torch.randn(64, 128) * 0.02)
        layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.words(x) + self.places).mean(1))
        return out


class Recurrent(nn.Module):
    """An LSTM on 32 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 64)
        self.lstm = nn.LSTM(64, 64, batch_first=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(self.words(x))[0][:, -1])
        return out


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def resnet18() -> nn.Module:
    net: nn.Module = torchvision().models.resnet18(weights=None, num_classes=CLASSES)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return net


def densenet() -> nn.Module:
    net: nn.Module = torchvision().models.densenet121(weights=None, num_classes=CLASSES)
    return net


IMAGE, TOKENS = (3, 32, 32), (64,)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (mlp, (784,), 256),
    "lenet": (lenet, (1, 28, 28), 128),
    "resnet20": (lambda: build({"name": "resnet_cifar"}, IMAGE, CLASSES), IMAGE, 64),
    "resnet18": (resnet18, IMAGE, 32),
    "densenet121": (densenet, IMAGE, 16),
    "transformer": (Transformer, TOKENS, 32),
    "lstm": (Recurrent, (32,), 32),
}


def case(name: str, batch: int, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A net in eval mode with running statistics that are not trivial, and a batch."""
    make, shape, _ = NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    words = name in ("transformer", "lstm")
    x = torch.randint(0, 1000, (batch, *shape)) if words else torch.randn(batch, *shape)
    return net.to(device), x.to(device), torch.randint(0, CLASSES, (batch,)).to(device)


def head_of(net: nn.Module) -> Head:
    last = [n for n, m in net.named_modules() if isinstance(m, nn.Linear)][-1]
    return Head(last, tuple(map(str, range(CLASSES))))


def plain(net: nn.Module, x: Tensor, y: Tensor) -> Sums:
    net.zero_grad()
    functional.cross_entropy(net(x), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
    return {}


def ours(net: nn.Module, x: Tensor, y: Tensor) -> Sums:
    return dict(measure(net, x, y, head=head_of(net)).sums["squares"])


def expectation(net: nn.Module, x: Tensor, y: Tensor) -> Sums:
    del y
    return dict(measure(net, x, None, head=head_of(net), loss="own").sums["squares"])


def one_at_a_time(net: nn.Module, x: Tensor, y: Tensor) -> Sums:
    sums = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for i in range(len(x)):
        plain(net, x[i : i + 1], y[i : i + 1])
        for n, p in net.named_parameters():
            if p.grad is not None:
                sums[n].addcmul_(p.grad, p.grad)
    return sums


def torch_func(net: nn.Module, x: Tensor, y: Tensor) -> Sums:
    free, fixed = {n: p.detach() for n, p in net.named_parameters()}, dict(net.named_buffers())

    def loss(free: Sums, a: Tensor, b: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(net, {**fixed, **free}, (a[None],)), b[None])

    step = max(1, VMAP_ENTRIES // sum(p.numel() for p in free.values()))
    sums = {n: torch.zeros_like(p) for n, p in free.items()}
    for i in range(0, len(x), step):
        for n, g in vmap(grad(loss), (None, 0, 0))(free, x[i : i + step], y[i : i + step]).items():
            sums[n] += g.square_().sum(0)
    return sums


def backpack(net: Any, x: Tensor, y: Tensor) -> Sums:
    from backpack import backpack as record, extend
    from backpack.extensions import SumGradSquared

    if not hasattr(net, "extended"):
        for module in net.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        composed = any(type(m).__module__.split(".")[0] not in ("torch",) for m in net.modules())
        net.extended = [extend(copy.deepcopy(net), use_converter=composed), extend(nn.CrossEntropyLoss(reduction="sum"))]
        net.extended[0].eval()
    model, loss = net.extended
    model.zero_grad()
    with record(SumGradSquared()):
        loss(model(x), y).backward()
    found = {n: p.sum_grad_squared for n, p in model.named_parameters()}
    return dict(zip((n for n, _ in net.named_parameters()), found.values(), strict=True))


def opacus(net: Any, x: Tensor, y: Tensor) -> Sums:
    from opacus import GradSampleModule

    if not hasattr(net, "sampled"):
        twin = copy.deepcopy(net).train()
        for module in twin.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        net.sampled = [GradSampleModule(twin, loss_reduction="sum")]
    model = net.sampled[0]
    model.zero_grad()
    functional.cross_entropy(model(x), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
    return {n: p.grad_sample.square().sum(0) for n, p in model._module.named_parameters()}


METHODS: dict[str, Callable[[nn.Module, Tensor, Tensor], Sums]] = {
    "ours": ours, "expectation": expectation, "backpack": backpack, "opacus": opacus, "torch.func": torch_func,
    "loop": one_at_a_time,
}  # fmt: skip


def error(found: Sums, exact: Sums) -> float:
    """Of the worst parameter, relative."""
    worst = 0.0
    for n, e in exact.items():
        if float(e.norm()) > 0:
            worst = max(worst, float((found[n].double().cpu() - e).norm() / e.norm()))
    return worst


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def bench(name: str, batch: int, repeats: int, device: str) -> list[dict[str, Any]]:
    net, x, y = case(name, batch, device)
    twin = copy.deepcopy(net).cpu().double()
    wide = x.cpu().double() if x.is_floating_point() else x.cpu()
    exact = dict(loop(twin, wide, y.cpu()).sums["squares"])
    expected = dict(loop(twin, wide, None, loss=Own()).sums["squares"])
    nets = {m: copy.deepcopy(net) for m in METHODS}
    rows: dict[str, dict[str, Any]] = {}
    for method, run in METHODS.items():
        rows[method] = {"net": name, "batch": batch, "method": method, "ratio": None, "error": None, "peak_mb": None}
        try:
            rows[method]["error"] = error(run(nets[method], x, y), expected if method == "expectation" else exact)
        except Exception as reason:  # a rival's failure is a result
            rows[method]["failed"] = f"{type(reason).__name__}: {str(reason).splitlines()[0][:160] if str(reason) else ''}"
    able = [m for m in METHODS if "failed" not in rows[m]]
    ratios: dict[str, list[float]] = {m: [] for m in able}
    plain(net, x, y)
    for _ in range(repeats):
        for method in able:
            marks = [clock(device)]
            plain(net, x, y)
            marks.append(clock(device))
            METHODS[method](nets[method], x, y)
            marks.append(clock(device))
            ratios[method].append((marks[2] - marks[1]) / (marks[1] - marks[0]))
            gc.collect()
    for method in able:
        rows[method]["ratio"] = round(statistics.median(ratios[method]), 3)
        rows[method]["ratios"] = [round(r, 3) for r in sorted(ratios[method])]
        command = [sys.executable, __file__, "--peak", name, method, str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[method]["peak_mb"] = float(done.stdout.split()[-1])
    for row in rows.values():
        print({k: v for k, v in row.items() if k != "ratios"}, file=sys.stderr, flush=True)
    return list(rows.values())


def peak(name: str, method: str, batch: int) -> float:
    """MiB by which the first call raises the peak."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, x, y = case(name, batch, device)
    plain(net, x[:1], y[:1])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        METHODS[method](net, x, y)
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that importing torch made (Linux)
    before = memory("VmRSS")
    METHODS[method](net, x, y)
    return (memory("VmHWM") - before) / 1024


def memory(what: str) -> float:
    """KiB of this process, from the kernel's own accounting."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("test", "cpu", "gpu"), default="cpu", help="test: two nets, small batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    parser.add_argument("--nets", default=",".join(NETS), help="names, with commas")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", nargs=3, metavar=("NET", "METHOD", "BATCH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak(args.peak[0], args.peak[1], int(args.peak[2])))
        return
    device = "cuda" if args.size == "gpu" else "cpu"
    names, repeats = (("mlp", "lenet"), 1) if args.size == "test" else (args.nets.split(","), args.repeats)
    rows = []
    for name in names:
        batch = {"test": 8, "cpu": NETS[name][2], "gpu": 256}[args.size]
        rows += bench(name, batch, repeats, device)
    result = {
        "what": __doc__,
        "size": args.size,
        "repeats": repeats,
        **origin("backpack-for-pytorch", "opacus", "torchvision"),
        "rows": rows,
    }
    if args.write:
        keep(f"bench_importance_{args.size}", result)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("| net | method | ratio | error | peak MB |\n|---|---|---|---|---|")
        for r in rows:
            shown = (
                [r["failed"], "", ""] if "failed" in r else [f"{r['ratio']:.2f}", f"{r['error']:.0e}", f"{r['peak_mb']:.0f}"]
            )
            print(f"| {r['net']} B{r['batch']} | {r['method']} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
