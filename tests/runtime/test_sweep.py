"""A sweep of a store keeps what is kept and nothing else, wherever its tensors lie."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fedunlearn.store import Store, check_store, sweep
from fedunlearn.store.hashing import hash_of
from fedunlearn.tensors import Head
from tests.runtime.remains import raw


@settings(max_examples=30)
@given(data=st.data())
def test_a_sweep_keeps_what_is_kept_and_nothing_else(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    store, head = Store(tmp_path_factory.mktemp("sweep")), Head("h", ("a",))
    values = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), min_size=1)
    versions = {
        store.write({n: torch.full((9,), float(v)) for n, v in made.items()}, head): made
        for made in data.draw(st.lists(values, min_size=1, max_size=5))
    }
    keep = data.draw(st.sets(st.sampled_from(sorted(versions))))
    planned = sweep(store, keep, dry=True)
    assert sweep(store, keep) == planned
    assert set(planned.versions) == set(versions) - keep
    assert set(store.versions()) == keep
    for version in keep:
        assert {n: float(t[0]) for n, t in Store(store.folder).read(version).weights.items()} == versions[version]
    found = check_store(store, dict.fromkeys(keep, "kept"))
    assert not found.damage
    assert not found.orphans
    left = b"".join(p.read_bytes() for p in store.folder.rglob("*.safetensors"))
    for value in range(4):
        held = any(value in versions[v].values() for v in keep)
        assert (raw(torch.full((9,), float(value))) in left) == held


def test_a_pack_that_becomes_another_is_not_swept_with_it(tmp_path: Path) -> None:
    """After a repair a tensor may lie in two packs; what is left of one may then be the other, which is swept as well."""
    store, head = Store(tmp_path), Head("h", ("a",))
    a, b = torch.full((9,), 1.0), torch.full((9,), 2.0)
    both, one = store.write({"n": a, "m": b}, head), store.write({"n": a}, head)
    pair = store.manifest(both)["packs"].popitem()[1]
    for value in range(3, 40):
        more = store.write_pack({hash_of(t): t for t in (a, b, torch.full((9,), float(value)))})
        if more < pair:  # swept before it
            break
    renamed = store.write({"x": a, "y": b}, head)
    store.replace_pack(renamed, pair, more)
    sweep(store, {one, renamed})
    found = check_store(Store(tmp_path), {one: "kept", renamed: "kept"})
    assert not found.damage
    assert not found.orphans
    assert torch.equal(Store(tmp_path).read(renamed).weights["y"], b)
