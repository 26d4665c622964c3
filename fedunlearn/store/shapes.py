"""What a store's files say, for whoever reads them: anybody may have written them."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from fedunlearn.plain import Hash


class _Head(TypedDict):
    layer: str
    classes: list[str]


class Table(TypedDict):
    """What manifests have in common: names of tensors in one pack, by parameter."""

    pack: Hash
    tensors: dict[str, Hash]


class Manifest(TypedDict):
    """What a version says; see FORMAT.md."""

    format: int
    head: _Head
    net: NotRequired[str]
    pack: Hash | Literal[""]  # empty where other versions' packs hold all of it
    tensors: dict[str, Hash]
    tables: list[Hash]
    hash: Hash
