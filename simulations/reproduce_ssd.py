"""Does SSD do what its paper says, on held-out rows and beside models that were retrained from scratch?

"Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening" (arXiv 2308.07707). One model, as in the
paper, which measures what is forgotten on itself; a class, a sub-class, 1 % of its rows. The public code's "retrained" model
keeps all layers but the last; here it is trained from nothing.
"""

from reproduction import Cell, Claim, Paper, reproduce
from single import CLASS, RANDOM, SUB, class_cell, random_cell, sub_cell
from switches import BatchMeanSSD

from fedunlearn.compare import Choice
from fedunlearn.methods import LogitMask, Steer
from fedunlearn.methods.ssd import SSD

OURS = (
    Choice("ssd, alpha 10", SSD(alpha=10.0, lam=1.0)),
    Choice("ssd, auto", SSD()),
    Choice("ssd, percentile", SSD(alpha="percentile", lam=1.0)),
    Choice("ssd, alpha 10, batch-mean squares of 64", BatchMeanSSD()),
    Choice("ssd, alpha 10, batch-mean squares of 320", BatchMeanSSD(batch=320)),
    Choice("ssd, alpha 10, batch-mean squares of 320, first 32", BatchMeanSSD(batch=320, first=32)),
    Choice("steer", Steer()),
)
MASK = Choice("logit mask", LogitMask())
SUMMARY = "CIFAR-10, of a machine-made summary that nobody checked"
CARDS = "CIFAR-10 test images, ResNet-18, public model cards of others, batches of 256"
PAPER = Paper(
    "reproduce_ssd",
    (
        Claim("a class: unlearning effectiveness", "98.4 %", f"{SUMMARY}; what it means is not said", "left", CLASS),
        Claim("a class: accuracy on the rest", "93.1 %", SUMMARY, "rest", CLASS),
        Claim("a class, alpha 10: accuracy left on it", "0.0 % for all ten", CARDS, "worst", CLASS),
        Claim("a class, alpha 10: accuracy on the rest", "76.86 %; dog 12.53 %, horse 17.71 %", CARDS, "rest", CLASS),
        Claim("a class, alpha 10: what the costliest costs", "two of ten classes: about 80 points", CARDS, "worst_lost", CLASS),
        Claim("time against retraining", "1000 times faster", f"{SUMMARY}; clocks include scoring", "saved", CLASS),
        Claim("a sub-class (one of CIFAR-100 in a class of 20)", "no number found", "held-out rows of it", "left", SUB),
        Claim("random rows (about 82 of CIFAR-10)", "no number found", "those rows", "left", RANDOM),
    ),
    {
        "squares of the means of 64 rows in the order of classes": "reproduced, as `batch-mean squares of 64`",
        "FIUn's: 32 rows of every 320": "reproduced, as `batch-mean squares of 320, first 32`, beside 320 in full",
        "alpha 5 and 25 for ViT; alpha 50 and lam 0.1 for faces": "not reproduced: other nets and data",
        "a retrained model that keeps its features": "not reproduced: it is no model without the data",
        "ZRF and membership inference on training rows": "not reproduced: no number is known to compare with",
    },
    "digits of 8x8 pixels, a small CNN, three seeds, no heirs. A sub-class is one digit of a pair; it and random rows are "
    "tested on the very rows that are forgotten, beside the retrained model; chosen strengths are chosen on them, too.",
)
CPU = [class_cell((*OURS, MASK)), sub_cell(OURS), random_cell(OURS)]
TEST: list[Cell] = [class_cell((OURS[0], OURS[5], MASK), classes="0"), sub_cell(OURS[:1], digits=("3",))]

if __name__ == "__main__":
    reproduce(__doc__, PAPER, {"cpu": CPU, "test": TEST})
