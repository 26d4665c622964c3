"""Sets by name, from files and from the user's loader; what is wrong with any is said."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedunlearn.data import SETS, open_rows
from fedunlearn.errors import InputError
from tests.data.shared import shared


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDUNLEARN_DATA", raising=False)


@pytest.fixture
def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_sets.py").write_text(
        "import numpy as np\n"
        "def load(part): return np.eye(3) * (2 if part == 'test' else 1), [0, 1, 1], ['a', 'b'], ['x', 'y', part]\n"
        "def broken(part): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "their_sets"


def test_digits_are_the_real_ones() -> None:
    digits = open_rows("digits")
    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    assert float(digits.x.max()) == 1.0


def test_digits_have_no_test_part() -> None:
    with pytest.raises(InputError, match="'digits': has no test part of its own; leave out `test:`, so that rows are held out"):
        open_rows("digits", "test")


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    pixels = np.arange(2 * 5 * 4 * 3, dtype="uint8").reshape(2, 5, 4, 3)
    np.savez(path, images=pixels, labels=np.array([1, 0]), classes=["cat", "dog"])
    found = open_rows(str(path))
    assert found.x.is_contiguous()
    assert np.array_equal(found.x.numpy(), (pixels.transpose(0, 3, 1, 2) / 255).astype("float32"))
    assert found.labels == ("dog", "cat")


def test_parts_beside_the_topology_or_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for where, value in (("topology", 1.0), ("data", 2.0)):
        for part, n in (("train", 4), ("test", 2)):
            (tmp_path / where).mkdir(exist_ok=True)
            if (where, part) != ("topology", "test"):
                np.savez(tmp_path / where / f"mine-{part}.npz", x=np.full((n, 3), value), y=np.arange(n) % 2)
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path / "data"))
    beside = str(tmp_path / "topology")
    train, test = (open_rows("mine-{part}.npz", part, beside=beside) for part in ("train", "test"))
    assert (len(train), float(train.x.max())) == (4, 1.0)
    assert (len(test), float(test.x.max())) == (2, 2.0)


def test_a_loader_of_the_users_own(loader: str) -> None:
    found = open_rows(f"{loader}:load", "test", options={"scale": 4.0, "limit": 1})
    assert found.keys == ("x", "y")
    assert found.labels == ("a", "b")
    assert float(found.x.max()) == 0.5
    with pytest.raises(InputError, match=r"data loader 'their_sets:broken' returned int, expected \(x, y\)"):
        open_rows(f"{loader}:broken")
    with pytest.raises(InputError, match="unknown name in module 'their_sets' 'laod'; did you mean 'load'"):
        open_rows(f"{loader}:laod")


def test_real_tables() -> None:
    folder = shared("tabular/letter-train.npz")
    train, test = (
        open_rows("tabular/letter-{part}.npz", p, beside=str(folder), options={"scale": 15}) for p in ("train", "test")
    )
    assert (len(train), len(test), tuple(train.x.shape[1:])) == (16000, 4000, (16,))
    assert train.classes == test.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert float(train.x.max()) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": 3}, "data set 'digits': unknown data option 'limits'; did you mean 'limit'"),
        ({"size": 3}, "data set 'digits': option 'size' does not apply to this kind of set, which takes limit, scale"),
        ({"limit": 0}, "option 'limit' is 0, expected a whole number of 1 or more"),
        ({"limit": True}, "option 'limit' is True, expected a whole number"),
        ({"scale": 0}, "option 'scale' is 0, expected a number above 0"),
        ({"scale": "two"}, "option 'scale' is 'two', expected a number above 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_rows("digits", options=options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.npz", None, r"gone.npz': no such file; looked for .*gone.npz"),
        ("torn.npz", b"PK\x03\x04", "not a readable .npz file"),
        ("notes.csv", b"1,2", r".csv files cannot be read; an .npz or .jsonl file, a folder of images, or their.module:load"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_rows(str(tmp_path / name))


def test_wrong_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown data set 'digitz'; did you mean 'digits'"):
        open_rows("digitz")
    with pytest.raises(InputError, match="unknown part 'trian'; did you mean 'train'"):
        open_rows("digits", "trian")
    with pytest.raises(InputError, match=r"pass --data DIR, or set FEDUNLEARN_DATA, to name the folder that holds it"):
        open_rows("sets/letter.npz")
    np.savez(tmp_path / "letter-train.npz", x=np.zeros((1, 1)), y=[0])
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"did you mean 'letter-train.npz'\?; put it there, or pass another data folder"):
        open_rows("letters-train.npz")
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match=re.escape(f"the data folder {tmp_path / 'none'} does not exist")):
        open_rows("letter.npz")


def test_npz_with_other_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels=np.zeros(1))
    with pytest.raises(InputError, match=r"expected arrays x .* found \['pixels'\]"):
        open_rows(str(tmp_path / "a.npz"))


def test_the_menu_is_what_the_documents_say() -> None:
    assert set(SETS) == {"digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"}
