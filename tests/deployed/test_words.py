"""What an adopted app's run is told in words is the order that a deployment takes."""

from typing import Any

import pytest

from fedunlearn.deployed import Order
from fedunlearn.errors import InputError
from fedunlearn.flower import _read as read


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ("unlearn classes=0,1", {"action": "unlearn", "classes": "0,1"}),
        ("unlearn sites=site-1 quorum=0.8 score-at-roots=true", {"sites": "site-1", "quorum": 0.8, "score_at_roots": True}),
        ("assess tier=audit seeds=3", {"action": "assess", "tier": "audit", "seeds": 3}),
        ("seal reason='it is true' deadline=7200", {"reason": "it is true", "deadline": 7200.0}),
        ("rollback lift-exclusion=false reason=true", {"lift_exclusion": False, "reason": "true"}),
    ],
)
def test_words_are_the_order(words: str, order: dict[str, Any]) -> None:
    found = Order.of({**read(words), "family": "x"})
    assert {k: getattr(found, k) for k in order} == order


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("unlearn quorum=most", r"'quorum=most': expected a number like 1\.0"),
        ("assess seeds=1.5", "'seeds=1.5': expected a number like 1"),
        ("rollback lift-exclusion=yes", "'lift-exclusion=yes': expected true or false"),
        ("unlearn 0", "'0': expected key=value with one of action, "),
        ("unlearn clases=0", r"fedunlearn = 'unlearn clases=0': unknown key 'clases'; did you mean 'classes'\?"),
        ("unlearn reason='it is", "No closing quotation; expected an action and key=value pairs"),
        ("  ", "expected an action and key=value pairs"),
    ],
)
def test_what_is_no_word_of_an_order_is_said(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(words)
