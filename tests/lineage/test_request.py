"""A request says something, and says it right."""

from typing import Any

import pytest

from fedunlearn.errors import InputError
from fedunlearn.lineage import Request, Shard


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "names nothing to forget"),
        ({"classes": ("a",), "samples": ("n/m/1",)}, "samples stand alone"),
        ({"samples": ("n/1",)}, "sample 'n/1': expected site/shard/key"),
        ({"classes": ("a",), "due": "soon"}, "due 'soon': expected a date like"),
    ],
)
def test_wrong_requests_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request(**asked)


def test_the_same_request_has_the_same_id_however_it_is_written() -> None:
    assert Request(classes=("b", "a", "a")) == Request(classes=("a", "b"))
    assert Request(classes=("a",)).id != Request(classes=("a",), sites=("n",)).id


def test_json_and_back() -> None:
    for request in (Request(classes=("a",), sites=("n",), since="m", due="2027-01-31"), Request(samples=("n/m/k/1",))):
        assert Request.from_json(request.to_json()) == request


def test_dates_are_told_in_one_way() -> None:
    """They are compared as text."""
    assert Request(classes=("a",), due="20270131").due == "2027-01-31"


def test_what_it_touches_of_a_shard() -> None:
    shard = Shard("n", "m", {"a": 2, "b": 0, "c": 1})
    assert Request(classes=("a", "b")).touches(shard) == ("a",)
    assert Request(sites=("n",)).touches(shard) == ("a", "c")
    assert Request(classes=("a",), sites=("x",)).touches(shard) == ()
    assert Request(samples=("n/m/7",)).touches(shard) == ("a", "b", "c")
    assert Request(samples=("n/x/7",)).touches(shard) == ()
