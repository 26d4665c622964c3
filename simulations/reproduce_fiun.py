"""Does FIUn do what its paper says, on held-out rows and at heirs that have a class only by inheritance?

"Parallel Unlearning in Inherited Model Networks" (arXiv 2408.08493). One factor at a time around a centre: a federation,
one class, the last layer, three generations of heirs. Beside it the logit mask, `steer`, and the retrained family.
"""

import os
from functools import partial
from typing import Any

from reproduction import FAMILIES, Cell, Claim, Paper, reproduce
from switches import DividedFIUn

from fedunlearn.compare import Choice, Subject
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, LogitMask, Steer
from fedunlearn.scenario.files import parse

FOUR = ("0", "1", "2", "3")  # the public code forgets the first labels
BLOCK = "body.7,head"  # of the small CNN: the layer before the last, and the last
GROWN = 3  # classes that increments add, one each
DIGITS = {"data": {"set": "digits"}, "net": {"name": "cnn", "channels": 8}}
LETTERS = {  # a table: classes enough for fifteen
    "folder": str(FAMILIES),
    "data": {"set": "tabular/letter-{part}.npz", "test": "tabular/letter-{part}.npz", "scale": 15},
    "net": {"name": "mlp", "hidden": 128},
}
FIFTEEN = tuple("ABCDEFGHIJKLMNO")
CIFAR = {
    "folder": str(FAMILIES),
    "data": {"set": "shared_sets:cifar10", "test": "shared_sets:cifar10", "limit": 1000, "test_limit": 200},
    "net": {"name": "resnet_cifar", "depth": 20},
}
HUNDRED = {  # with classes to forget that a net is good at, so that there is something to forget
    "folder": str(FAMILIES),
    "data": {"set": "shared_sets:cifar100", "test": "shared_sets:cifar100", "limit": 200, "share": {"bare-*": 0.25}},
}
SMALL = HUNDRED | {"net": CIFAR["net"]}
RESNET = HUNDRED | {"net": {"name": "torchvision", "model": "resnet18", "small": True}}
DENSENET = HUNDRED | {"net": {"name": "torchvision", "model": "densenet161", "small": True}}
EASY = ("orange", "wardrobe", "motorcycle", "road", "plain", "apple", "bicycle", "palm_tree", "skyscraper", "sunflower",
        "chair", "pickup_truck", "sea", "keyboard", "mountain")  # fmt: skip
LETTERED = {"epochs": 4, "lr": 0.1}
TRAINED = {"epochs": 2, "batch": 64, "schedule": "cosine", "lr": 0.1}
TUNED = {"epochs": 1, "batch": 64, "lr": 0.001}
TRAINED_LONGER = {"epochs": 4, "batch": 128, "schedule": "cosine", "lr": 0.1, "precision": "bf16"}
TUNED_LONGER = {"epochs": 1, "batch": 128, "lr": 0.001, "precision": "bf16"}
AROUND = (Choice("steer", Steer()), Choice("logit mask", LogitMask()))
CENTRE, SEVERAL = "centre", "4 classes"
THEIRS = "CIFAR-100, TinyImageNet; AlexNet to ViT; the code tests on training rows, at heirs that were trained on the class"


def born(birth: str, parents: list[str], number: int) -> dict[str, Any]:
    """The `number`-th generation of heirs (from 0), at sites without the class; heads need it and are trained on it."""
    if birth == "FL":
        return {"born": "federated", "from": parents, "clients": ["bare-1", "bare-2"], "rounds": 1}
    if birth == "DDP":
        return {"born": "distributed", "from": parents, "ranks": ["bare-1", "bare-2"]}
    if birth == "IL":
        adds = [str(10 - GROWN + number)] if number < GROWN else []
        return {"born": "incremental", "from": parents, "site": f"bare-{1 + number % 2}", "adds": adds}
    return {"born": "transfer", "from": ["root"], "site": f"head-{number}", "head": [str(c) for c in range(10 - number)]}


def family(
    name: str, birth: str = "FL", forget: tuple[str, ...] = ("0",), depth: int = 3, parts: tuple[tuple[str, ...], ...] = (),
    base: dict[str, Any] = DIGITS, trained: dict[str, Any] | None = None, tuned: dict[str, Any] | None = None,
) -> Subject:  # fmt: skip
    """A family and its request.

    Args:
        name: of the topology.
        birth: how heirs are born: FL, DDP, IL (a chain whose head grows) or TL (a star of heads).
        forget: classes.
        depth: generations of heirs; heads, of a star.
        parts: for two roots, the forgotten classes that each holds; the second goes on from the first, and heirs start from
            their average.
        base: data and net.
        trained: how the roots are trained, where the defaults do not fit.
        tuned: how the heirs are.
    """
    without: dict[str, list[str]] = {} if birth == "TL" else {"bare-*": list(forget)}
    if parts:
        without |= {f"root-{i}": [c for c in forget if c not in part] for i, part in enumerate(parts, 1)}
        models: dict[str, Any] = {
            "first": {"born": "federated", "clients": ["root-1"], "rounds": 5, **(trained or {})},
            "second": {"born": "federated", "from": ["first"], "clients": ["root-2"], "rounds": 5, **(trained or {})},
        }
        last = ["first", "second"]
    else:
        root = {"born": "federated", "clients": ["full-1", "full-2"], "rounds": 5} if birth == "FL" else {
            "born": "incremental", "site": "full", "epochs": 10,
        }  # fmt: skip
        if birth == "IL":
            root["head"] = [str(c) for c in range(10 - GROWN)]
        models, last = {"root": root | (trained or {})}, ["root"]
    for number in range(depth):
        models[f"heir-{number + 1}"] = born(birth, last, number) | (tuned or {})
        last = [f"heir-{number + 1}"]
    share = {"full": depth if birth == "TL" else 2} if birth != "FL" else {}  # half of the rows train the root, as in FL
    data = base["data"] | {"without": without, "share": base["data"].get("share", {}) | share}
    plain = {"name": name, **base, "data": data, "models": models}
    return Subject(parse(plain, name), (Request(classes=forget),))


def cell(name: str, topology: str, layers: str = "last", switch: bool = False, **how: Any) -> Cell:
    """A cell: FIUn with the public code's numbers and with its own, perhaps with the divisor, beside the others."""
    fiun = [
        Choice("fiun, alpha 1", FIUn(alpha=1.0, lam=1.0, layers=layers)),
        Choice("fiun, auto", FIUn(layers=layers)),
    ]
    if switch:
        fiun.append(Choice("fiun, alpha 1, divided by 5", DividedFIUn(alpha=1.0, lam=1.0, layers=layers)))
    subject = family(topology, **how)
    return Cell(name, lambda seed: subject, (*fiun, *AROUND))


def overlap(percent: int, held: int, forget: tuple[str, ...] = FOUR, of: str = "", **how: Any) -> Cell:
    """Several classes from two roots: the first holds so many of them, the second the rest, and as many more as overlap.

    Args:
        percent: of the classes that both hold.
        held: how many the first holds.
        forget: the classes.
        of: says what they are, in the cell's name, where they are not four digits.
        how: as `family` takes it.
    """
    both = round(percent / 100 * len(forget))
    parts = (forget[:held], forget[max(0, held - both) :])
    name = f"fiun-overlap-{percent}" + f"-{len(forget)}" * (forget != FOUR)
    return cell(f"{of}2 roots, {percent} % overlap", name, switch=True, forget=forget, parts=parts, **how)


def cells() -> list[Cell]:
    """Around the centre; on letters, CIFAR-10 and CIFAR-100, too, where they are at hand."""
    found = [
        cell(CENTRE, "fiun-centre"),
        cell("last block", "fiun-centre", layers=BLOCK),
        cell("all layers", "fiun-centre", layers="all"),
        *(cell(birth, f"fiun-{birth.lower()}", birth=birth) for birth in ("DDP", "IL", "TL")),
        cell("class 8", "fiun-eight", forget=("8",)),
        cell(SEVERAL, "fiun-four", forget=FOUR),
        *(overlap(percent, held) for percent, held in ((0, 2), (50, 3), (100, 4))),
        *(cell(f"depth {depth}", f"fiun-depth-{depth}", depth=depth) for depth in (1, 10, 29, 49)),
    ]
    if os.environ.get("FEDUNLEARN_DATA"):
        fifteen = partial(overlap, forget=FIFTEEN, of="15 letters, ", base=LETTERS, trained=LETTERED, tuned={"epochs": 1})
        found += [fifteen(percent, held) for percent, held in ((0, 8), (50, 11), (100, 15))]
        on = partial(cell, base=CIFAR, trained=TRAINED, tuned=TUNED)
        found.append(on("centre on CIFAR-10", "fiun-cifar", forget=("automobile",)))
        found.append(on("all layers on CIFAR-10", "fiun-cifar", layers="all", forget=("automobile",)))
        four = ("airplane", "automobile", "bird", "cat")
        found.append(on("4 classes on CIFAR-10", "fiun-cifar-four", forget=four))
        half = {"precision": "bf16"}
        hundred = partial(cell, base=SMALL, trained=TRAINED | half, tuned=TUNED | half, forget=EASY[:1])
        found.append(hundred("centre on CIFAR-100", "fiun-cifar100"))
        found.append(hundred("all layers on CIFAR-100", "fiun-cifar100", layers="all"))
    return found


def larger() -> list[Cell]:
    """On CIFAR-100, for a GPU: a ResNet-18, and a DenseNet-161 at the centre and with all its layers."""
    longer = partial(cell, trained=TRAINED_LONGER, tuned=TUNED_LONGER, forget=EASY[:1])
    on, deep = partial(longer, base=RESNET), partial(longer, base=DENSENET)
    several = partial(overlap, forget=EASY, base=RESNET, trained=TRAINED_LONGER, tuned=TUNED_LONGER)
    return [
        deep("DenseNet-161", "fiun-densenet"),
        deep("DenseNet-161, all layers", "fiun-densenet", layers="all"),
        on(CENTRE, "fiun-resnet"),
        on("last block", "fiun-resnet", layers="layer4.1,fc"),
        on("all layers", "fiun-resnet", layers="all"),
        on(SEVERAL, "fiun-resnet-four", forget=EASY[:4]),
        *(several(percent, held) for percent, held in ((0, 8), (50, 11), (100, 15))),
        on("depth 10", "fiun-resnet-depth", depth=10),
    ]


PAPER = Paper(
    "reproduce_fiun",
    (
        Claim("one class: accuracy left on it", "0 %", THEIRS, "left", CENTRE),
        Claim("one class: accuracy on the rest", "94.53 %", THEIRS, "rest", CENTRE),
        Claim("four classes: accuracy left on them", "1.07 %", THEIRS, "left", SEVERAL),
        Claim("four classes: accuracy on the rest", "84.77 %", THEIRS, "rest", SEVERAL),
        Claim("time saved against retraining", "99 %", "clocks of rivals include scoring, FIUn's does not", "saved", CENTRE),
        Claim("forgets at any depth (49 at most)", "no number", "same; of fifty, two are tested before", "worst", "depth 49"),
    ),
    {
        "alpha and lam by hand (1 and 1 for federations)": "reproduced, as `fiun, alpha 1`",
        "merged evidence divided by 5 for every further root": "reproduced, as `fiun, alpha 1, divided by 5`, with two roots",
        "squares of batch means; 32 rows of each batch": "not reproduced for inherited evidence, since sites send sums over "
        "single rows; on one model in `reproduce_ssd.py`",
        "every root's evidence at every heir": "not reproduced: evidence is merged over each heir's own ancestors",
    },
    "digits of 8x8 pixels, a small CNN, three seeds; where a cell says so, 26 letters from 16 measurements and an MLP, or a "
    "ResNet-20 on 10,000 images of CIFAR-10, or on 20,000 of CIFAR-100 in bfloat16. Heirs were never trained on what they are "
    "to forget, except in TL, whose new heads must be.",
    "20,000 images of CIFAR-100 and a ResNet-18 (first convolution 3x3) but where a cell says DenseNet-161; classes that such "
    "nets know well, of 100. Four fifths of the images train the roots, in bfloat16. Heirs were never trained on what they are "
    "to forget.",
)
TEST = [overlap(50, 3, depth=1, trained={"rounds": 3})]

if __name__ == "__main__":
    reproduce(__doc__, PAPER, {"cpu": cells(), "test": TEST, "gpu": larger()})
