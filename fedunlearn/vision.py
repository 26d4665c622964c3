"""torchvision, also where its compiled operators are missing."""

import importlib
from types import ModuleType

from torch import library

from fedunlearn.errors import InputError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_defined: list[library.Library] = []  # a library lives as long as it is referred to


def torchvision(what: str = "this") -> ModuleType:
    """The package torchvision.

    Its wheel is compiled against one build of torch. Beside another (the CPU build, say) its own operators are missing and
    the import fails with "operator torchvision::nms does not exist". Models, data sets and transforms need none of them, so
    the names alone are defined then; calling one of these operators still fails.

    Args:
        what: what needs it, to say in an error.

    Raises:
        InputError: torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise InputError(f'{what} needs the package torchvision ({error}); pip install "fedunlearn[vision]"') from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    ours = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        ours.define(schema)  # type: ignore[no-untyped-call]
    _defined.append(ours)
    return importlib.import_module("torchvision")
