"""Does FisherMask do what its paper says: forget by a mask alone, keep the rest, and stay stable over seeds and ratios?

"Unlearning with Fisher Masking" (arXiv 2310.05331). One model, as in the paper, which measures what is forgotten on itself;
each class; masks of 0 to 50 % of the units, alone and with its schedule (training's learning rate and its two drops
compressed into S = 5 epochs on the rest); and S of 1 to 10. A ratio of 0 with the schedule is plain fine-tuning.
"""

from statistics import median

from reproduced import Rows
from reproduction import Cell, Claim, Paper, reproduce
from single import class_cell
from switches import WholeFisherMask

from fedunlearn.compare import Choice
from fedunlearn.methods import LogitMask, Steer
from fedunlearn.methods.activation_mask import ActivationMask
from fedunlearn.methods.fisher_mask import FisherMask

RATIOS = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.25, 0.5)
SCHEDULE = 5  # epochs, S in the paper
OTHERS = (1, 2, 10)
PUBLISHED = 0.02  # the ratio of its configurations for CIFAR


def masks(ratio: float) -> tuple[Choice, ...]:
    """The paper's rule at one ratio, alone and with the schedule, and the library's."""
    found = [theirs(ratio, tune) for tune in (0, SCHEDULE)]
    if ratio:
        more = f"{theirs(ratio, 0).label}, of units that matter more"
        found.append(Choice(more, FisherMask(ratio=ratio, per_heir=True)))
    return tuple(found)


def theirs(ratio: float, epochs: int) -> Choice:
    """The paper's rule, and its schedule in so many epochs."""
    after = f", then {epochs} epoch{'s' * (epochs > 1)}" * bool(epochs)
    return Choice(f"mask {100 * ratio:g}%{after}", WholeFisherMask(ratio, epochs))


def cell(ratio: float, classes: str = "0123456789") -> Cell:
    """One ratio, alone and with the schedule; beside the published one, what needs no ratio or finds its own."""
    choices = masks(ratio)
    if ratio == PUBLISHED:
        auto = Choice("mask, auto, of units that matter more", FisherMask(per_heir=True))
        others = (Choice("activation mask 2%", ActivationMask(ratio=ratio)), Choice("steer", Steer()))
        choices += (auto, *others, Choice("logit mask", LogitMask()))
    return class_cell(choices, name=named(ratio), classes=classes)


def schedule(epochs: int) -> Cell:
    """A schedule of so many epochs, after the published ratio and after no mask."""
    return class_cell((theirs(0.0, epochs), theirs(PUBLISHED, epochs)), name=f"S = {epochs}")


def named(ratio: float) -> str:
    """Of a cell."""
    return f"ratio {100 * ratio:g}%"


def shares(rows: Rows) -> str:
    """What share of units there is to choose from, over models and classes, in %."""
    lines = ["| of all units | least | median | most |", "|---|---|---|---|"]
    for key, words in (("more", "matter more to the class than to the rest"), ("alike", "matter alike, mostly not at all")):
        each = sorted(100 * r["strength"][key] for r in rows if key in (r["strength"] or {}))
        if each:
            lines.append(f"| {words} | {each[0]:.1f} | {median(each):.1f} | {each[-1]:.1f} |")
    return "\n".join(lines)


THEIRS = "CIFAR-10, -100, MNIST, TinyImageNet; ResNet, VGG, GoogLeNet, DenseNet; figures, no number found"
PAPER = Paper(
    "reproduce_fishermask",
    (
        Claim("a mask alone forgets", "almost completely", THEIRS, "left", named(PUBLISHED)),
        Claim("a mask alone keeps the rest", "most of it", THEIRS, "lost", named(PUBLISHED)),
        Claim("better than fine-tuning alone", "significantly", THEIRS, "left", named(0.0)),
        Claim("stable over seeds: least and most that is left", "no number", "seeds 666, 777, 888", "spread", named(PUBLISHED)),
        Claim("larger masks cost more (0.02 to 0.25)", "degradation grows", "CIFAR-100, ResNet-50", "lost", named(0.25)),
        Claim("and are less stable", "oscillation grows", "CIFAR-100, ResNet-50", "spread", named(0.25)),
        Claim("ratios above 0.25", "open question", "not tried", "lost", named(0.5)),
    ),
    {
        "squares of the means of 128 rows, weighed by mean probability": "not reproduced: the library has batch means of the "
        "labels' loss only, not of every output's",
        "units that matter more to the rest are masked, too, up to the ratio": "reproduced, as `mask R`; the library takes "
        "none of them: `mask R, of units that matter more`",
        "30 epochs, 25 of them at the last rate": "not reproduced: S epochs, and no more",
        "the retrained model is chosen on the test set": "not reproduced: it is the one that training ends with",
    },
    "digits of 8x8 pixels, a small CNN, three seeds, no heirs; every class in a request of its own.",
)
CPU = [*(cell(r) for r in RATIOS), *map(schedule, OTHERS)]
TEST = [cell(r, classes="8") for r in (0.0, 0.25)]

if __name__ == "__main__":
    reproduce(__doc__, PAPER, {"cpu": CPU, "test": TEST})
