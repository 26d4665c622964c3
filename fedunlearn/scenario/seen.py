"""Held-out rows that are trained on as well, at their site or at another: scores on them are not of unseen rows."""

import torch

from fedunlearn.data.rows import twins
from fedunlearn.errors import InputError
from fedunlearn.scenario.build import Opened

SOME, MOST = 0.03, 0.5  # of the held-out rows: what is worth a word, as sets have a few twins; what no score is worth
DO = "deal each row once, to one site, or name a set of other rows to test on (`test:` under `data`)"


def seen(opened: Opened) -> tuple[int, int]:
    """How many held-out rows have the inputs of a row to train on, at any place that is open here, and of how many.

    Args:
        opened: a scenario's data.
    """
    held = [rows.x for rows in opened.held if len(rows)]
    return (twins(torch.cat(held), [rows.x for rows in opened.dealt]), sum(map(len, held))) if held else (0, 0)


def refuse_seen(name: str, opened: Opened) -> None:
    """Refuse to train where most of what would be tested on is trained on.

    Args:
        name: of the scenario, to say in an error.
        opened: its data.

    Raises:
        InputError: it is; says how many rows.
    """
    again, of = seen(opened)
    if again > MOST * of:
        raise InputError(
            f"{name}: {again} of the {of} held-out rows have the very inputs of rows that are trained on, so that no score "
            f"would be of unseen rows; {DO}"
        )


def told_seen(opened: Opened) -> list[str]:
    """The same in a sentence, where it is more than a few; none otherwise.

    Args:
        opened: a scenario's data.
    """
    again, of = seen(opened)
    if again <= SOME * of:
        return []
    return [
        f"{again} of the {of} held-out rows ({again / of:.0%}) have the very inputs of rows that are trained on, so that "
        f"scores are only in part of unseen rows; {DO}"
    ]
