"""Weights that were trained elsewhere: read without running code that their file may hold, and fitted to a net."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedunlearn.errors import InputError, ShapeError, few
from fedunlearn.tensors import Tensors, finite

NESTED = ("state_dict", "model_state_dict", "model")  # where trainers put the weights beside other things
WRAPPED = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
COUNTERS = "num_batches_tracked"  # of BatchNorm; many published files leave it out
SHOWN = 3
TIMES = 4  # as many bytes as the file has may all tensors have: names may share one
DTYPES = (
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
REMEDY = "save the weights alone, `torch.save(model.state_dict(), 'weights.pt')`, or as .safetensors"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights in a file.

    Args:
        path: a .safetensors file, or one that torch saved: a state_dict, or a dict that has one under `state_dict`,
            `model_state_dict` or `model`. Nothing in the file is executed.

    Returns:
        Tensors by name, on the CPU, without the prefix that DistributedDataParallel or torch.compile put before all names.

    Raises:
        InputError: no such file, or it holds something else.
    """
    what = f"weights file {str(path)!r}"
    if not path.is_file():
        raise InputError(f"{what}: no such file; expected .safetensors, or a state_dict that torch saved")
    held: Any = _safetensors(path, what) if path.suffix == ".safetensors" else _torch(path, what)
    if isinstance(held, Mapping):
        held = next((held[k] for k in NESTED if isinstance(held.get(k), Mapping)), held)
    if not isinstance(held, Mapping) or not held:
        found = "nothing" if isinstance(held, Mapping) else f"a {type(held).__name__}"
        raise InputError(f"{what}: holds {found}, expected tensors by name; {REMEDY}")
    room = TIMES * path.stat().st_size
    for name, tensor in held.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{what}: {str(name)[:80]!r} is a {type(tensor).__name__}, expected tensors by name; {REMEDY}")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in DTYPES:
            raise InputError(f"{what}: {name!r} is a {tensor.layout} tensor of {tensor.dtype}, expected a dense one; {REMEDY}")
        if (room := room - tensor.nbytes) < 0:
            raise InputError(f"{what}: {name!r} claims {tensor.nbytes} bytes, more than the file has room for; {REMEDY}")
        if not finite(tensor):
            raise InputError(f"{what}: {name!r} has entries that are NaN or infinite")
    weights = {name: tensor.detach().contiguous() for name, tensor in held.items()}
    for prefix in WRAPPED:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def fit_to(net: nn.Module, weights: Tensors) -> dict[str, Tensor]:
    """Weights as a net takes them.

    Args:
        net: the net; it is not changed.
        weights: tensors by name; counters of BatchNorm that are missing are zero.

    Returns:
        A tensor for every name of the net, in its types (floating point of another width is rounded).

    Raises:
        ShapeError: names or shapes differ, or one has whole numbers where the other has not; says some of each.
    """
    own = net.state_dict()
    missing = [n for n in own if n not in weights and not n.endswith(f".{COUNTERS}") and n != COUNTERS]
    beside = [n for n in weights if n not in own]
    other = [
        f"{n!r} is {tuple(weights[n].shape)} in the file, {tuple(t.shape)} in the net"
        for n, t in own.items()
        if n in weights and weights[n].shape != t.shape
    ]
    other += [
        f"{n!r} is of {weights[n].dtype} in the file, of {t.dtype} in the net (of quantised weights, take those from before)"
        for n, t in own.items()
        if n in weights and weights[n].is_floating_point() != t.is_floating_point()
    ]
    said = [f"only the net has {few(map(repr, missing), SHOWN)}"] if missing else []
    said += [f"only the file has {few(map(repr, beside), SHOWN)}"] if beside else []
    said += [few(other, SHOWN)] if other else []
    if said:
        raise ShapeError(
            f"weights and net do not fit: {'; '.join(said)}; name the net, its settings and its classes as the file has them"
        )
    return {n: weights[n].to(t.dtype) if n in weights else torch.zeros_like(t) for n, t in own.items()}


def _safetensors(path: Path, what: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, RuntimeError, OverflowError) as error:
        raise InputError(f"{what}: not a readable .safetensors file: {error}") from error


def _torch(path: Path, what: str) -> Any:
    try:
        with warnings.catch_warnings():  # about pickle protocols, which are no concern of the user's
            warnings.simplefilter("ignore")
            _unpacked(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common error for what is torn or no file of its own
        if code := re.search(r"(?:GLOBAL|global|class|function|type) (\w+(?:\.\w+)+)", str(error)):
            raise InputError(
                f"{what}: holds more than weights ({code[1]}), and to load that would run code; it was not run; {REMEDY}"
            ) from error
        said = str(error).strip().splitlines()[-1:] or ["it is empty"]
        raise InputError(f"{what}: not a readable file of torch's: {type(error).__name__}: {said[0]}; {REMEDY}") from error


def _unpacked(path: Path) -> None:
    """Torch packs nothing in what it saves: an archive that unpacks to more than it has was made to fill memory.

    Raises:
        ValueError: it is one.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (claimed := sum(i.file_size for i in archive.infolist())) > path.stat().st_size:
                raise ValueError(f"it unpacks to {claimed} bytes, and has {path.stat().st_size}")
