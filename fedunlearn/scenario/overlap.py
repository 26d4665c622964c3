"""Held-out rows that are trained on as well, at their site or at another: scores on them are not of unseen rows."""

import torch

from fedunlearn.data.rows import twins
from fedunlearn.scenario.build import Opened

SOME = 0.03  # of the held-out rows: what is worth a word, as sets have a few twins
DO = "deal each row once, to one site, or name a set of other rows to test on (`test:` under `data`)"


def seen(opened: Opened) -> tuple[int, int]:
    """How many held-out rows have the inputs of a row to train on, at any place that is open here, and of how many.

    Args:
        opened: a scenario's data.
    """
    held = [rows.x for rows in opened.held if len(rows)]
    return (twins(torch.cat(held), [rows.x for rows in opened.dealt]), sum(map(len, held))) if held else (0, 0)


def told_seen(opened: Opened) -> list[str]:
    """The same in a sentence, where it is more than a few; none otherwise.

    Never more than a word: rows of a table with few values are alike by nature.

    Args:
        opened: a scenario's data.
    """
    again, of = seen(opened)
    if again <= SOME * of:
        return []
    return [
        f"{again} of the {of} held-out rows ({again / of:.0%}) have the very inputs of rows that are trained on, so that "
        f"scores are only in part of unseen rows; unless they are alike by nature, {DO}"
    ]
