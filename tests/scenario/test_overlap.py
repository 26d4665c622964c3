"""Held-out rows that are trained on are counted, and said."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from fedunlearn.scenario import Scenario, doubts, load, train
from fedunlearn.scenario.build import open_data
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.overlap import seen, told_seen
from tests.scenario.small import changed

SHARED = """
import numpy as np

def load_site(site):
    ours = np.random.default_rng(len(site)).normal(size=(200, 5))
    everybodys = np.random.default_rng(0).normal(size=(200, 5))
    ours[:SHARE] = everybodys[:SHARE]
    order = np.random.default_rng(len(site)).permutation(200)  # so that rows are held out at one site, trained on at another
    return ours[order], np.arange(200) % 3, ["0", "1", "2"]
"""


def sharing(share: int, folder: Path) -> Scenario:
    """Two sites, of whose 200 rows so many are the other's, too."""
    (folder / f"shared_by_sites{share}.py").write_text(SHARED.replace("SHARE", str(share)))
    plain = changed("data", {"factory": f"shared_by_sites{share}:load_site", "calibration": 0.1, "held_out": 0.2})
    plain["models"]["two"]["site"] = "southern"
    (folder / f"{share}.yaml").write_text(yaml.safe_dump(plain))
    return load(folder / f"{share}.yaml")


@pytest.mark.parametrize("share", [0, 5, 40, 120, 200])
def test_they_are_counted_as_one_by_one(share: int, tmp_path: Path) -> None:
    opened = open_data(sharing(share, tmp_path), tmp_path / "family")
    trained = {tuple(x.tolist()) for d in opened.places.values() for rows in d.shards.values() for x in rows.x}
    held = [tuple(x.tolist()) for d in opened.places.values() for rows in d.held_out.values() for x in rows.x]
    assert seen(opened) == (sum(x in trained for x in held), len(held))
    assert held
    assert (seen(opened)[0] > 0) == (share > 0)


def test_a_family_whose_sites_share_few_rows_is_trained_with_a_word(tmp_path: Path) -> None:
    family = train(sharing(60, tmp_path), tmp_path / "family")
    (said,) = doubts(family, family.heads)
    again, of = seen(open_data(sharing(60, tmp_path), tmp_path / "family"))
    assert said.startswith(f"{again} of the {of} held-out rows")
    apart = train(sharing(0, tmp_path), tmp_path / "apart")
    assert doubts(apart, apart.heads) == []


def test_one_that_is_tested_on_what_it_is_trained_on_is_told_so(tmp_path: Path) -> None:
    family = train(sharing(200, tmp_path), tmp_path / "family")
    again, of = seen(open_data(sharing(200, tmp_path), tmp_path / "family"))
    assert again > of / 2
    assert doubts(family, family.heads)[0].startswith(
        f"{again} of the {of} held-out rows ({again / of:.0%}) have the very inputs"
    )


def test_a_set_that_is_dealt_is_counted_once_and_has_none(tmp_path: Path) -> None:
    opened = open_data(parse(changed("name", "small"), "here"), tmp_path / "family")
    again, of = seen(opened)
    assert of == sum(len(rows) for rows in next(iter(opened.places.values())).held_out.values())
    assert len(opened.places) > 1
    assert told_seen(opened) == []
    assert again <= 0.01 * of


def test_twice_in_one_sites_rows_counts_as_well(tmp_path: Path) -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(60, 4)), 4, axis=0)
    np.savez(tmp_path / "rows.npz", x=x, y=np.arange(60).repeat(4) % 3)
    opened = open_data(parse(changed("data", {"set": str(tmp_path / "rows.npz")}), "here"), tmp_path / "family")
    again, of = seen(opened)
    assert again > of / 2
    assert told_seen(opened)
