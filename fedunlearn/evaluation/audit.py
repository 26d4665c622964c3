"""Hours: an attacker who trains models like the one under attack, and has them forget by the same method."""

from typing import Any

import torch

from fedunlearn.data.rows import joined
from fedunlearn.evaluation.membership import FEW, ulira, verdict
from fedunlearn.evaluation.outputs import margins
from fedunlearn.evaluation.trial import Trial


def per_example(trial: Trial) -> dict[str, Any]:
    """U-LiRA on forgotten training rows against held-out rows of the same classes. 0.5 is what a retrained model shows."""
    shadows, unlearn = trial.effort.shadows, trial.effort.unlearn
    assert shadows is not None
    parts = trial.parts
    targets = joined([parts["forgotten_training"], parts["others"]])
    plain = shadows.margins(targets)
    edited = plain if unlearn is None else shadows.margins(targets, unlearn, trial.progress)
    found: dict[str, Any] = {}
    for net in trial.nets.named:
        observed = [margins(trial.logits(net, p), parts[p].y) for p in ("forgotten_training", "others")]
        m = len(observed[0])
        scores = ulira(torch.cat(observed), *(plain if net == "before" else edited))
        found[net] = verdict(scores[:m], scores[m:], 0.0, trial.effort.seed).to_json()
    return {
        "attack": "LiRA (shadow models not unlearned: weaker)" if unlearn is None else "U-LiRA",
        "shadows": len(shadows),
        "variance": "of each row" if len(shadows) // 2 >= FEW else "shared by all rows",
        **found,
    }
