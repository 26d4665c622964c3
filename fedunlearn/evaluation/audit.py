"""Hours: an attacker who trains models like the one under attack, and has them forget by the same method."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedunlearn.evaluation.closeness import klom
from fedunlearn.evaluation.membership import FEW, ulira, verdict
from fedunlearn.evaluation.outputs import margins
from fedunlearn.evaluation.trial import Trial

PERCENTILES = (50, 95)  # over rows


def per_example(trial: Trial) -> dict[str, Any]:
    """U-LiRA on forgotten training rows against held-out rows of the same classes. 0.5 is what a retrained model shows."""
    unlearned = trial.effort.unlearn is not None
    found: dict[str, Any] = {}
    for net in trial.nets.named:
        ours, theirs = (_margins(trial, net, part) for part in ("forgotten_training", "peers"))
        scores = ulira(torch.cat([ours, theirs]), *trial.shadowed(unlearned and net != "before"))
        found[net] = verdict(scores[: len(ours)], scores[len(ours) :], 0.0, trial.effort.seed).to_json()
    return {"attack": "U-LiRA" if unlearned else "LiRA (shadow models not unlearned: weaker)", **_pool(trial), **found}


def from_retrained(trial: Trial) -> dict[str, Any]:
    """U-LiRA's own game: is this row's margin that of a model that forgot it, or of one that never saw what is forgotten?

    The same forgotten rows on the net named and on the retrained ones. 0.5 is not to be told from them. Intervals are over rows
    of these very models, whose rows move together: each retrained model against the others is the control that says how far
    from 0.5 chance alone comes.
    """
    forgot, never = _forgot(trial), _never(trial)
    phi, inside = torch.cat([forgot, never]), torch.cat([torch.ones_like(forgot), torch.zeros_like(never)]).bool()
    again = trial.nets.again
    scores = {net: ulira(_margins(trial, net, "forgotten_training"), phi, inside) for net in trial.nets.named}
    found = {}
    for net in ("after", *again):
        others = [scores[other] for other in again if other != net]
        if others:
            found[net] = verdict(scores[net], np.concatenate(others), 0.0, trial.effort.seed).to_json()
    return {**_pool(trial), "innocents": len(never), **found}


def margins_from_retrained(trial: Trial) -> dict[str, Any]:
    """KLOM on forgotten rows: edited shadow models against models that never saw them; and these among themselves."""
    forgot, never = _forgot(trial), _never(trial)
    half = len(never) // 2  # as references both times: with fewer models in it a histogram is farther from any other
    found = {"edited": klom(forgot, never[half:]), "innocents_to_innocents": klom(never[:half], never[half:])}
    of = {name: {f"p{p}": float(np.percentile(row, p)) for p in PERCENTILES} for name, row in found.items()}
    return {"models": len(forgot), "innocents": len(never), **of}


def _margins(trial: Trial, net: str, part: str) -> Tensor:
    return margins(trial.logits(net, part), trial.parts[part].y)


def _forgot(trial: Trial) -> Tensor:
    """Margins on forgotten rows of those edited shadow models that were trained on them [K / 2, N]."""
    n = len(trial.parts["forgotten_training"])
    phi, inside = (t[:, :n] for t in trial.shadowed(True))
    return phi.T[inside.T].reshape(n, -1).T


def _never(trial: Trial) -> Tensor:
    assert trial.effort.innocents is not None
    return trial.effort.innocents.margins_of(trial.parts["forgotten_training"])


def _pool(trial: Trial) -> dict[str, Any]:
    assert trial.effort.shadows is not None
    number = len(trial.effort.shadows)
    return {"shadows": number, "variance": "of each row" if number // 2 >= FEW else "shared by all rows"}
