"""Open questions that a comparison of methods answers: how much, with which strength, labels, sizes of classes, net, mask."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from common import SHARD
from joint_mask import JointMask
from open_questions_family import (
    ALL,
    FISHER_MASK,
    FIUN,
    FULL,
    IMAGES,
    LETTERS,
    LFSSD_,
    MASK,
    SMALL,
    SSD_,
    STEER,
    TABLE,
    Made,
    Rows,
    classes,
    compared,
    family,
    samples,
)
from single import model, random_cell, sub_cell
from switches import MovedSSD
from torch.nn.functional import cross_entropy

from fedunlearn.compare import Choice, Subject
from fedunlearn.compare.work import Nest, kept
from fedunlearn.evaluation.outputs import logits
from fedunlearn.methods.fisher_mask import FisherMask
from fedunlearn.methods.lfssd import LFSSD
from fedunlearn.methods.ssd import SSD
from fedunlearn.nets import load
from fedunlearn.runtime import Family
from fedunlearn.runtime.backend import Progress
from fedunlearn.scenario import Scenario, workers

ASKED = (1, 5, 13)  # of 26 letters
SHARES = (0.01, 0.1, 0.3, 0.5)  # of the rows
WRONG = (0, 20, 40)  # % of labels
UNEQUAL = (10, 30, 100, 300, 1000)  # rows of a class, in % of those of another
ALPHAS = (0.1, 1.0, 10.0, 100.0)
LAMS = (1.0, 0.1)
RATIOS = (0.02, 0.1, 0.5)
FEW = {"data": {"set": "digits"}, "net": {"name": "mlp", "hidden": 16}}  # so few weights that their whole Fisher is at hand
JOINT = (0.005, 0.02)  # of them
TUNED = 5  # epochs, the paper's S
TEXTS = {
    "set": "text/trec6-{part}.jsonl.gz",
    "test": "text/trec6-{part}.jsonl.gz",
    "tokens": 24,
    "vocabulary": 4096,
    "limit": 300,
}
PLANES = {"set": "open_sets:planes", "test": "open_sets:planes"}
WORDS = {"vocabulary": 4096, "width": 32}
MNIST = {"set": "shared_sets:mnist", "limit": 250}
PICTURE, KIND = "3", "LOC"
NETS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # net and data, training, class
    "mlp": (SMALL, {}, PICTURE),
    "cnn": (IMAGES, {}, PICTURE),
    "resnet-8": ({"data": PLANES, "net": {"name": "resnet_cifar", "depth": 8}}, {"lr": 0.05}, PICTURE),
    "transformer (28x28)": ({"data": MNIST, "net": {"factory": "open_nets:vit"}},
                            {"lr": 0.05, "epochs": 40, "schedule": "cosine"}, PICTURE),
    "gru (text)": ({"data": TEXTS, "net": {"name": "text_gru", **WORDS, "hidden": 64}}, {"lr": 0.3}, KIND),
    "transformer (text)": ({"data": TEXTS, "net": {"name": "text_transformer", **WORDS}}, {"lr": 0.05}, KIND),
}  # fmt: skip


def size(size: str, work: Path, say: Progress) -> Made:
    """1 to 13 of 26 letters, the heir's by inheritance; 1 to 50 % of one model's rows, where SSD is FIUn; and attacks."""
    cpu = size == "cpu"
    names, base = (LETTERS, TABLE) if cpu else (tuple("0123456789"), SMALL)
    choices = (FIUN, SSD_, LFSSD_, STEER, MASK) if cpu else (FIUN, STEER, MASK)
    alone = [c for c in choices if c not in (SSD_, MASK)]
    made: list[Made] = []
    tier = "full"  # for attacks on membership
    for number in ASKED if cpu else (3,):
        asked = names[:number]
        subject = Subject(family(f"open-size-{number}", base, asked), (classes(asked),))
        at = 100 * number / len(names)
        made.append(compared("classes", at, subject, choices, _seeds(cpu), work, say, tier))
    for share in SHARES if cpu else (0.2,):
        of = partial(_share, family("open-rows", SMALL, heir=False), share)
        made.append(compared("rows", 100 * share, of, alone, _seeds(cpu), work, say, tier))
    return together(made)


def _share(scenario: Scenario, share: float, seed: int) -> Subject:
    return Subject(scenario, tuple(samples(scenario, seed, share)))


def labels(size: str, work: Path, say: Progress) -> Made:
    """0 to 40 % of wrong labels in what models were trained on; tested on right ones."""
    return _trained_on("wrong", "wrong labels", WRONG, 20, size, work, say)


def unequal(size: str, work: Path, say: Progress) -> Made:
    """A class of a tenth to ten times the rows that another has, in what models were trained on; tested on equal ones."""
    return _trained_on("unequal", "unequal classes", UNEQUAL, 300, size, work, say)


def _trained_on(kind: str, cell: str, percents: Iterable[int], test: int, size: str, work: Path, say: Progress) -> Made:
    """All methods on families of one kind of `open_sets` each."""
    cpu = size == "cpu"
    made = []
    for percent in percents if cpu else (test,):
        base = {**IMAGES, "data": {"set": f"open_sets:{kind}_{percent}", "test": f"open_sets:{kind}_{percent}"}}
        subject = Subject(family(f"open-{kind}-{percent}", base, ("3",)), (classes(("3",)),))
        choices = ALL if cpu else (FISHER_MASK, MASK)
        made.append(compared(cell, percent, subject, choices, _seeds(cpu), work, say))
    return together(made)


def whole(size: str, work: Path, say: Progress) -> Made:
    """Single weights masked by FisherMask's score, and by what they cost together after the diagonal and the whole Fisher."""
    cpu = size == "cpu"
    asked = tuple(classes((c,)) for c in (("3", "8") if cpu else ("3",)))
    subject, made = Subject(family("open-whole", FEW, heir=False), asked), list[Made]()
    for ratio in (*JOINT, 0.0) if cpu else JOINT[:1]:
        chosen: float | Literal["auto"] = ratio or "auto"
        choices = [
            Choice("fisher mask", FisherMask(ratio=chosen, per_heir=True)),
            Choice("diagonal", JointMask(ratio=chosen, whole=False)),
            Choice("whole", JointMask(ratio=chosen)),
        ]
        made.append(compared("weights", 100 * ratio, subject, choices, _seeds(cpu), work, say))
    return together(made)


def parts(size: str, work: Path, say: Progress) -> Made:
    """FisherMask at several ratios, alone and with fine-tuning: a class, a digit of a pair, 1 % of the rows."""
    cpu = size == "cpu"
    whole = Subject(model("single"), (classes(("3",)),))
    asked = {
        "a class": lambda seed: whole,
        "a sub-class": sub_cell((), ("3",)).subject,
        "1 % of the rows": random_cell(()).subject,
    }
    made = []
    for cell, subject in asked.items() if cpu else [("a sub-class", asked["a sub-class"])]:
        for ratio in RATIOS if cpu else RATIOS[1:2]:
            choices = [
                Choice(label, FisherMask(ratio=ratio, tune=tune, per_heir=True))
                for label, tune in (("mask", 0), (f"mask, then {TUNED} epochs", TUNED))
            ]
            made.append(compared(cell, 100 * ratio, subject, choices, _seeds(cpu), work, say))
        auto = Choice("mask, auto", FisherMask(per_heir=True))
        others = (auto, SSD_, STEER) if cpu else (auto,)
        made.append(compared(cell, 0, subject, others, _seeds(cpu), work, say))
    return together(made)


def _alone(cpu: bool) -> Iterable[tuple[str, Subject]]:
    """Single models, and two classes each to forget."""
    bases = {"digits": (IMAGES, ("3", "8")), "letters": (TABLE, ("A", "E"))}
    for cell, (base, names) in bases.items() if cpu else [("digits", (IMAGES, ("3",)))]:
        yield cell, Subject(family(f"open-strength-{cell}", base, heir=False), tuple(classes((c,)) for c in names))


def place(size: str, work: Path, say: Progress) -> Made:
    """SSD, and the same factors on other weights of the same tensors; alpha by hand, with its lam, and chosen for each."""
    cpu = size == "cpu"
    made: list[Made] = []
    for cell, subject in _alone(cpu):
        for alpha in (*ALPHAS, 0.0) if cpu else ALPHAS[1:2]:
            chosen: float | Literal["auto"] = alpha or "auto"
            choices = [Choice("ssd", SSD(alpha=chosen)), Choice("ssd, elsewhere", MovedSSD(alpha=chosen))]
            made.append(compared(cell, alpha, subject, choices, _seeds(cpu), work, say))
    return together(made)


def strength(size: str, work: Path, say: Progress) -> Made:
    """SSD's and LFSSD's alpha and lam by hand, beside what is chosen; and the mean loss of what is forgotten."""
    cpu = size == "cpu"
    made: list[Made] = []
    for cell, subject in _alone(cpu):
        for alpha in ALPHAS if cpu else ALPHAS[:1]:
            choices = [
                Choice(f"{label}, lam {lam:g}", kind(alpha=alpha, lam=lam, per_heir=True))
                for label, kind in (("ssd", SSD), ("lfssd", LFSSD))
                for lam in LAMS
            ]
            made.append(compared(cell, alpha, subject, choices, _seeds(cpu), work, say))
        found = (SSD_, LFSSD_, Choice("ssd, percentile", SSD(alpha="percentile", lam=1.0)), MASK) if cpu else (SSD_,)
        made.append(compared(cell, 0, subject, found, _seeds(cpu), work, say))
        names = [c for request in subject.requests for c in request.classes]
        losses = {(seed, c): _loss(work, subject.scenario, seed, c) for seed in range(_seeds(cpu)) for c in names}
        for row in (r for of, _ in made for r in of if r["cell"] == cell):
            row["loss"] = losses[row["seed"], row["class"]]
    return together(made)


def _loss(work: Path, scenario: Scenario, seed: int, c: str) -> float:
    """The root's mean loss on the rows of a class that it was trained on."""
    nest = Nest.of(work, scenario, seed)

    def once() -> dict[str, Any]:
        of = Family.open(nest.family)
        here = workers(nest.scenario, of)[FULL]
        found = of.store(FULL).read(of.heads["root"])
        rows = here.data.all(SHARD).of([c])
        net = load(here.make_net(len(found.head.classes), found.net), found.weights).eval()
        return {"loss": float(cross_entropy(logits(net, rows), rows.y))}

    return float(kept(nest.folder / "losses" / f"{c}.json", once)["loss"])


def nets(size: str, work: Path, say: Progress) -> Made:
    """SSD's Fisher, LFSSD's sensitivity and FisherMask on six kinds of nets."""
    cpu = size == "cpu"
    made, chosen = [], NETS if cpu else {"mlp": NETS["mlp"]}
    for at, (net, (base, trained, forget)) in enumerate(chosen.items()):
        name = f"open-net-{net.replace(' (', '-').removesuffix(')')}"
        subject = Subject(family(name, base, heir=False, **trained), (classes((forget,)),))
        choices = (SSD_, LFSSD_, FISHER_MASK, STEER, MASK) if cpu else (SSD_, LFSSD_)
        made.append(compared(net, at, subject, choices, _seeds(cpu), work, say))
    return together(made)


def together(made: Iterable[Made]) -> Made:
    """Rows of several cells as one."""
    rows: Rows = []
    origins: list[Any] = []
    for of, where in made:
        rows += of
        origins += where
    return rows, origins


def _seeds(cpu: bool) -> int:
    return 3 if cpu else 1
