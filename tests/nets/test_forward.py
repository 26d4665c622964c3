"""Laws of rows through a net, a batch at a time."""

import torch

from fedunlearn.data import Rows
from fedunlearn.evaluation import accuracy, score
from fedunlearn.nets import batches
from fedunlearn.nets.forward import AT_ONCE


def test_batches_are_all_of_it_in_order_and_none_is_large() -> None:
    net = torch.nn.Linear(2, 3)
    for n in (0, 1, AT_ONCE["cpu"], AT_ONCE["cpu"] + 1, 1000):
        x = torch.arange(2.0 * n).reshape(n, 2)
        parts = list(batches(net, x))
        assert torch.equal(torch.cat(parts) if parts else x, x)
        assert all(0 < len(part) <= AT_ONCE["cpu"] for part in parts)


def test_classes_are_scored_as_if_each_were_alone() -> None:
    torch.manual_seed(0)
    net, classes = torch.nn.Linear(2, 3).eval(), ("a", "b", "c")
    rows = Rows(torch.randn(700, 2), torch.randint(0, 2, (700,)), tuple(map(str, range(700))), classes)
    found = score(net, rows, rows.of(["b"]), classes)
    assert found.by_class == {c: accuracy(net, rows.of([c])) for c in classes}
    assert found.by_class["c"] is None
    assert found.forgotten == accuracy(net, rows)
    assert found.retained == found.by_class["b"] != found.by_class["a"]
