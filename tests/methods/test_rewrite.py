"""Rewrite says about the class's mean feature what it says on average, and nothing else."""

import pytest
import torch

from fedunlearn.methods import Case, Evidence, make
from fedunlearn.methods.steer import LAST
from fedunlearn.tensors import Head

HEAD = Head("head", ("a", "b", "c", "d"))


def heir(classes: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], Case, torch.Tensor, torch.Tensor]:
    """A head over five features, rows of its own, and class means that the gradients of roots carry."""
    draw = torch.Generator().manual_seed(5)
    weights = {n: torch.randn(s, generator=draw).double() for n, s in (("head.weight", (4, 5)), ("head.bias", (4,)))}
    own = torch.cat([torch.randn(50, 5, generator=draw).double() + 1, torch.ones(50, 1).double()], 1)
    means = {c: torch.randn(5, generator=draw).double() * 3 for c in classes}
    evidence = []
    for certain in (0.9, 0.2):  # two roots, unequally certain of the same rows
        for c, mean in means.items():
            g = {"head.weight": torch.zeros(4, 5).double(), "head.bias": torch.zeros(4).double()}
            g["head.weight"][HEAD.classes.index(c)], g["head.bias"][HEAD.classes.index(c)] = certain * mean, certain
            evidence.append(Evidence(g, 7, c))
    case = Case(tuple(evidence), Evidence({"head.weight": own.T @ own / 50}, 50), HEAD, classes)
    return weights, case, torch.stack(list(means.values())), own


@pytest.mark.parametrize("classes", [("b",), ("b", "d")])
def test_the_mean_feature_gets_the_average_output_at_the_least_damage(classes: tuple[str, ...]) -> None:
    weights, case, means, own = heir(classes)
    edited = make("rewrite").edit(weights, case, {})
    rows = [HEAD.classes.index(c) for c in classes]
    others = [i for i in range(4) if i not in rows]
    before, after = (torch.cat([w["head.weight"], w["head.bias"][:, None]], 1) for w in (weights, edited))
    told = torch.cat([means, torch.ones(len(means), 1).double()], 1)
    assert torch.equal(before[others], after[others])
    average = (own @ before.T).mean(0)[rows]
    assert torch.allclose(told @ after[rows].T, average.expand(len(rows), -1), atol=1e-9)
    damped = own.T @ own / 50
    damped = damped + LAST * damped.diagonal().mean() * torch.eye(6).double()
    step = after[rows] - before[rows]
    free = torch.eye(6).double() - torch.linalg.pinv(told) @ told  # changes that leave what is said about the means
    assert torch.allclose(step @ damped @ free, torch.zeros(len(rows), 6).double(), atol=1e-9)  # none of them makes it smaller


def test_a_root_that_does_not_know_the_class_is_not_asked() -> None:
    weights, case, _, _ = heir(("b",))
    unsure = Evidence({n: torch.zeros_like(t) for n, t in case.evidence[0].means.items()}, 7, "b")
    method = make("rewrite")
    both = Case((*case.evidence, unsure), case.own, HEAD, ("b",))
    assert torch.equal(method.edit(weights, both, {})["head.weight"], method.edit(weights, case, {})["head.weight"])


def test_requests_that_it_cannot_serve_are_told_apart() -> None:
    _, case, _, _ = heir(("b",))
    method = make("rewrite")
    assert method.misses(case) is None
    assert "names no class" in str(method.misses(Case(case.evidence, Evidence(), HEAD, ())))
    bare = Evidence({"head.weight": case.evidence[0].means["head.weight"]}, 7, "b")
    assert "no last layer with a bias" in str(method.misses(Case((bare,), Evidence(), HEAD, ("b",))))
    assert "no output to rewrite" in str(method.misses(Case(case.evidence, Evidence(), HEAD, ("z",))))
