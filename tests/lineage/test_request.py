"""A request says something, and says it right."""

from itertools import chain, combinations, product
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
        ({"classes": "12"}, r"classes is '12', expected several names: \('12',\)"),
        ({"sites": "north"}, "sites is 'north', expected several names"),
        ({"samples": "n/m/1"}, "samples is 'n/m/1', expected several names"),
        ({"classes": ("a",), "id": 5}, "id is 5, expected text"),
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


def test_it_covers_another_where_it_touches_all_that_this_does() -> None:
    """For classes and sites, which stand in shards; of samples the keys alone tell."""
    sites, classes = ("m", "n", "o"), ("a", "b", "c")
    shards = [Shard(site, "s", {c: 1}) for site, c in product(sites, classes)]
    some = [tuple(chain.from_iterable(combinations(names, n) for n in range(3))) for names in (sites, classes)]
    asked = [Request(classes=c, sites=s) for s, c in product(*some) if s or c]
    touched = {r: {s.key + c for s in shards for c in r.touches(s)} for r in asked}
    for one, other in product(asked, asked):
        assert one.covers(other) == (touched[one] >= touched[other])
    assert sum(one.covers(other) for one, other in product(asked, asked)) > len(asked)


@pytest.mark.parametrize(
    ("asked", "other", "covers"),
    [
        ({"samples": ("n/s/1", "n/s/2")}, {"samples": ("n/s/1",)}, True),
        ({"samples": ("n/s/1",)}, {"samples": ("n/s/1", "n/s/2")}, False),
        ({"sites": ("n",)}, {"samples": ("n/s/1", "n/t/1")}, True),
        ({"sites": ("n",)}, {"samples": ("n/s/1", "m/s/1")}, False),
        ({"classes": ("a",), "sites": ("n",)}, {"samples": ("n/s/1",)}, False),  # of which class is it?
        ({"classes": ("a",)}, {"samples": ("n/s/1",)}, False),
        ({"samples": ("n/s/1",)}, {"sites": ("n",)}, False),
        ({"classes": ("a",)}, {"classes": ("a",), "since": "m"}, True),
        ({"classes": ("a",), "since": "m"}, {"classes": ("a",)}, False),
        ({"classes": ("a", "b"), "since": "m"}, {"classes": ("a",), "since": "m"}, True),
    ],
)
def test_what_it_covers_of_samples_and_of_what_came_later(asked: dict[str, Any], other: dict[str, Any], covers: bool) -> None:
    assert Request(**asked).covers(Request(**other)) == covers
