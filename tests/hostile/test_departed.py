"""Whatever a ledger line says of who departed, what is lost is what lived there; or the line is refused."""

from typing import Any

import pytest

from fedunlearn.errors import StoreError
from fedunlearn.methods import FIUn
from fedunlearn.runtime import Family, InProcess, fsck, unlearn
from fedunlearn.scenario import Scenario, workers
from fedunlearn.store import Ledger
from tests.conftest import LEAVE

LAST = FIUn(layers="last")
ANYTHING = "whatever is left, for the test"


@pytest.mark.parametrize("lost", [{"shared": "0" * 64}, {"nobody": "x"}, {}])
@pytest.mark.parametrize("place", ["west", "server", "nowhere"])
def test_whatever_a_line_says_is_lost_it_is_what_lived_there(
    place: str, lost: dict[str, str], family: Family, hospitals: Scenario
) -> None:
    family.ledger.append("departed", {"place": place, "lost": lost})
    after = Family.open(family.folder)
    assert after.lost == {m.name for m in family.lineage.models if m.kept and m.home == place}
    unlearn(after, LEAVE, LAST, InProcess(workers(hospitals, after)), accept_untested=ANYTHING)
    assert not fsck(after.folder).damage


@pytest.mark.parametrize("body", [{"place": "west", "lost": 7}, {"place": 5, "lost": {}}, {"place": "../x", "lost": {}}, {}])
def test_a_line_that_says_nothing_of_the_kind_is_refused(body: dict[str, Any], family: Family) -> None:
    Ledger(family.ledger.path).append("departed", body)
    with pytest.raises(StoreError, match="says what no 'departed' line says"):
        Family.open(family.folder)
