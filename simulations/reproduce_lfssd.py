"""Does LFSSD do what its paper says: forget like SSD, without labels, on held-out rows?

"Loss-Free Machine Unlearning" (arXiv 2402.19308). One model, as in the paper, which measures what is forgotten on itself; a
class, a sub-class, 1 % of its rows; beside SSD, `steer`, the logit mask, and models retrained from scratch.
"""

from reproduction import Claim, Paper, reproduce
from single import CLASS, RANDOM, SUB, class_cell, random_cell, sub_cell

from fedunlearn.compare import Choice
from fedunlearn.methods import LogitMask, Steer
from fedunlearn.methods.lfssd import LFSSD
from fedunlearn.methods.ssd import SSD

OURS = (
    Choice("lfssd, alpha 10", LFSSD(alpha=10.0, lam=1.0, per_heir=True)),
    Choice("lfssd, auto", LFSSD(per_heir=True)),
    Choice("ssd, auto", SSD()),
    Choice("steer", Steer()),
)
MASK = Choice("logit mask", LogitMask())
THEIRS = "CIFAR-10, -20, -100; ResNet-18 and ViT; a comparison in words, no number found"
PAPER = Paper(
    "reproduce_lfssd",
    (
        Claim("a class: forgets like SSD", "competitive", THEIRS, "left", CLASS),
        Claim("a class: keeps the rest like SSD", "similar or better", THEIRS, "rest", CLASS),
        Claim("a sub-class: forgets like SSD", "competitive", THEIRS, "left", SUB),
        Claim("random rows: recognises them as SSD does", "competitive", THEIRS, "left", RANDOM),
        Claim("needs no retraining", "no number", THEIRS, "saved", CLASS),
    ),
    {
        "alpha and lam by hand": "not known: neither summary nor README gives them; SSD's 10 and 1 stand in",
        "absolute values of batch means": "not reproduced: the library has batch means of squares only",
        "membership inference": "not reproduced: no number is known to compare with",
    },
    "digits of 8x8 pixels, a small CNN, three seeds, no heirs. A sub-class is one digit of a pair; it and random rows are "
    "tested on the very rows that are forgotten, beside the retrained model; chosen strengths are chosen on them, too.",
)
CPU = [class_cell((*OURS, MASK)), sub_cell(OURS), random_cell(OURS)]
TEST = [class_cell((*OURS[:2], MASK), classes="0"), random_cell(OURS[:1])]

if __name__ == "__main__":
    reproduce(__doc__, PAPER, {"cpu": CPU, "test": TEST})
