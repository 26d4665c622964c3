"""Images from folders, and from torchvision's sets where they already are."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedunlearn.data import open_rows
from fedunlearn.errors import InputError
from fedunlearn.vision import torchvision

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for name, colour in COLOURS.items():
            folder = tmp_path / f"photos-{part}" / name
            folder.mkdir(parents=True)
            for i in range(3 if part == "train" else 1):
                Image.new("RGB", (20 + i, 10), colour).save(folder / f"{i}.png")
    return tmp_path


def test_a_folder_of_images(photos: Path) -> None:
    found = open_rows("photos-{part}", beside=str(photos), options={"size": 8, "limit": 2})
    assert tuple(found.x.shape) == (4, 3, 8, 8)
    assert found.labels == ("blue", "blue", "red", "red")
    assert found.keys == ("blue/0.png", "blue/1.png", "red/0.png", "red/1.png")
    assert found.x[2, :, 0, 0].tolist() == [1, 0, 0]
    assert len(open_rows("photos-{part}/", "test", beside=str(photos))) == 2


def test_wrong_folders_of_images_are_refused(photos: Path) -> None:
    with pytest.raises(InputError, match="expected a folder with one sub-folder of images a class"):
        open_rows(str(photos / "photos-train" / "red"))
    with pytest.raises(InputError, match=r"no such file; .*did you mean 'photos-train'"):
        open_rows("photos-tran/", beside=str(photos))
    (photos / "photos-train" / "red" / "9.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"9.png is not a readable image: .* repair or remove"):
        open_rows("photos-train", beside=str(photos))


def idx(path: Path, array: np.ndarray) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())
    path.with_suffix(".gz").write_bytes(gzip.compress(head))


def test_a_set_of_torchvision_that_is_already_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path))
    for part, n in (("train", 5), ("t10k", 3)):
        images = np.full((n, 28, 28), 255, np.uint8)
        idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8))
    train, test = (open_rows("mnist", part) for part in ("train", "test"))
    assert (tuple(train.x.shape), len(test)) == ((5, 1, 28, 28), 3)
    assert train.classes == tuple("0123456789")
    assert float(train.x.min()) == 1.0


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"])
def test_nothing_is_downloaded_unasked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDUNLEARN_DATA", raising=False)
    with pytest.raises(InputError, match="is read from the data folder, and none is named; pass --data DIR, or set FEDUNLEARN"):
        open_rows(name)
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"not in the data folder .* set `download: true` to fetch it"):
        open_rows(name, "test")
    assert not list(tmp_path.iterdir())


def test_a_download_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError("no network today")

    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision().datasets, "CIFAR10", fails)
    with pytest.raises(InputError, match=r"downloading it to .* failed: OSError: no network today"):
        open_rows("cifar10", options={"download": True})
    with pytest.raises(InputError, match="option 'download' is 'yes', expected true or false"):
        open_rows("cifar10", options={"download": "yes"})
