"""The public names exist, load when they are asked for, and say what there is when they are not."""

import pytest

import fedunlearn


def test_public_names() -> None:
    found = {name: getattr(fedunlearn, name) for name in fedunlearn.__all__}
    assert set(found.pop("METHODS")) >= {"fiun", "logit_mask"}
    assert all(value.__name__ == name for name, value in found.items())
    with pytest.raises(AttributeError, match="module 'fedunlearn' has no attribute 'unlern'; it has: "):
        fedunlearn.unlern  # noqa: B018
