"""Weights from elsewhere are read without running anything, and fitted by name and shape."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.nets import build, fit_to, load, read_checkpoint
from fedunlearn.tensors import equal
from tests.data.shared import shared

WEIGHTS = {"body.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}
PREFIXED = {f"module.{n}": t for n, t in WEIGHTS.items()}


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "held",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": PREFIXED},
        {"model_state_dict": {f"_orig_mod.{n}": t for n, t in WEIGHTS.items()}},
        {n: nn.Parameter(t) for n, t in PREFIXED.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_in_what_trainers_save(tmp_path: Path, held: dict[str, object], zipped: bool) -> None:
    torch.save(held, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "a.pt")
    assert equal(found, WEIGHTS)
    assert not any(t.requires_grad for t in found.values())


def test_safetensors(tmp_path: Path) -> None:
    save_file(PREFIXED, tmp_path / "a.safetensors")
    assert equal(read_checkpoint(tmp_path / "a.safetensors"), WEIGHTS)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, how: str) -> None:
    payload = {**WEIGHTS, "extra": Payload(tmp_path / "executed")}
    path = tmp_path / "a.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(InputError, match=r"holds more than weights|not a readable file of torch's"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (nn.Linear(2, 2), r"more than weights \(torch.nn.modules.linear.Linear\), .* `torch.save\(model.state_dict\(\), "),
        ({**WEIGHTS, "epoch": 3}, "'epoch' is a int, expected tensors by name; save the weights alone"),
        ({}, "holds nothing, expected tensors by name"),
        (torch.ones(2), "holds a Tensor, expected tensors by name"),
        ({"a": torch.tensor([float("nan")])}, "'a' has entries that are NaN or infinite"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, held: Any, message: str) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_torn_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable (file of torch's|\.safetensors file)"):
        read_checkpoint(tmp_path / name)
    with pytest.raises(InputError, match=r"no such file; expected .safetensors, or a state_dict"):
        read_checkpoint(tmp_path / f"gone-{name}")


def test_what_does_not_fit_is_said_of_both_sides() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 3))
    own = net.state_dict()
    bare = {n: t.double() for n, t in own.items() if "num_batches" not in n}
    fitted = fit_to(net, bare)
    assert equal(fitted, own)
    load(net, fitted)
    wrong = {**bare, "2.weight": torch.zeros(10, 2), **{f"extra{i}": torch.zeros(1) for i in range(5)}}
    del wrong["0.bias"]
    with pytest.raises(
        ShapeError,
        match=r"only the net has '0.bias'; only the file has 'extra0', 'extra1', 'extra2' and 2 more; "
        r"'2.weight' is \(10, 2\) in the file, \(3, 2\) in the net; name the net, its settings and its classes",
    ):
        fit_to(net, wrong)


def test_a_published_model_classifies() -> None:
    folder = shared("models/resnet20-cifar10.safetensors")
    net = build({"name": "resnet_cifar", "depth": 20}, (3, 32, 32), 10)
    weights = read_checkpoint(folder / "models" / "resnet20-cifar10.safetensors")
    load(net, fit_to(net, weights))
    with np.load(shared("ci/cifar10-test.npz") / "ci" / "cifar10-test.npz") as held:
        pixels = np.cumsum(np.cumsum(held["residual"], axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
        y = torch.from_numpy(held["labels"].astype("int64"))
    pixels[[0, 2]] += pixels[1]
    mean, std = (torch.tensor(t)[:, None, None] for t in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (torch.from_numpy(pixels.transpose(1, 0, 2, 3) / 255.0).float() - mean) / std
    with torch.no_grad():
        assert float((net.eval()(x).argmax(1) == y).double().mean()) > 0.88
    with pytest.raises(ShapeError, match=r"only the net has 'layer1.3.conv1.weight'.* and "):
        fit_to(build({"name": "resnet_cifar", "depth": 32}, (3, 32, 32), 10), weights)
