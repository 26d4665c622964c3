"""Data by name, from files, or from the user's own loader."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedunlearn.data.arrays import read_npz, rows_of
from fedunlearn.data.folder import find
from fedunlearn.data.images import MENU, TORCHVISION, read_photos
from fedunlearn.data.options import Options, part_of
from fedunlearn.data.rows import Rows
from fedunlearn.data.text import read_texts
from fedunlearn.dotted import call
from fedunlearn.errors import InputError, unknown

ANY = ("scale", "limit")  # options of every set whose inputs are no token ids
LOADER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
FORMS = "give one of these, an .npz or .jsonl file, a folder of images, or their.module:load"


def digits(part: str, options: Options) -> Rows:
    """1,797 handwritten digits, 8x8 grey, from scikit-learn; pixels scaled to [0, 1].

    Raises:
        InputError: the test part was asked for; there is none.
    """
    if part == "test":
        raise InputError("data set 'digits': has no test part of its own; leave out `test:`, so that rows are held out")
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    return rows_of(bunch.images / 16.0, bunch.target, [str(c) for c in range(10)], None, "data set 'digits'")


SETS: dict[str, Callable[[str, Options], Rows]] = {"digits": digits, **MENU}


def open_rows(name: str, part: str = "train", *, beside: str = "", options: Mapping[str, Any] | None = None) -> Rows:
    """A whole set.

    Args:
        name: a name of `SETS`; the path of an .npz, .jsonl or .jsonl.gz file, or of a folder with one sub-folder of images
            a class, where `{part}` stands for the part; or the user's own "their.module:load", called as `load(part)`.
        part: "train" or "test".
        beside: the folder that relative paths are looked up in before the data folder; by default the working directory.
        options: how it is opened: `download`, `size`, `tokens`, `vocabulary`, `scale`, `limit`, as far as they apply.

    Returns:
        Its rows: pixels [N, channels, height, width] in [0, 1], token ids [N, tokens], or what the arrays hold.

    Raises:
        InputError: no such set, file, part or option, or the file holds something else.
    """
    given, what, path = options or {}, f"data set {name!r}", part_of(name, part)

    def read(*applies: str) -> Options:
        return Options.read(given, applies, what)

    if name in SETS:
        asked = read(*ANY, "download") if name in TORCHVISION else read(*ANY)
        return asked.finish(SETS[name](part, asked))
    if LOADER.fullmatch(name):
        return read(*ANY).finish(_loaded(name, part, "data loader"))
    if not (_text(path) or Path(path).suffix or {"/", "\\"} & set(name)) and not _exists(path, beside):
        raise unknown("data set", name, SETS, where=FORMS)
    found = find(path, beside)
    if found.is_dir():
        asked = read(*ANY, "size")
        return asked.finish(read_photos(found, asked, what))
    if _text(path):
        asked = read("tokens", "vocabulary", "limit")
        return asked.finish(read_texts(found, asked.tokens, asked.vocabulary, what))
    if found.suffix != ".npz":
        raise InputError(f"{what}: {found.suffix or 'such'} files cannot be read; {FORMS.removeprefix('give one of these, ')}")
    return read(*ANY).finish(read_npz(found, what))


def open_site(factory: str, site: str, beside: str = "") -> Rows:
    """One site's rows from the user's own loader, called as `load_site(site)`.

    Args:
        factory: "their.module:load_site"; returns `(x, y)`, `(x, y, classes)` or `(x, y, classes, keys)`.
        site: the site's name.
        beside: a folder whose own module is taken, where it has one of that name.

    Raises:
        InputError: it cannot be called, raised, or returned something else.
    """
    return _loaded(factory, site, "data factory", f" for site {site!r}", beside)


def _loaded(function: str, argument: str, kind: str, whose: str = "", beside: str = "") -> Rows:
    what = f"{kind} {function!r}{whose}"
    found = call(function, kind, argument, beside=beside)
    if not isinstance(found, tuple) or not 2 <= len(found) <= 4:
        raise InputError(f"{what} returned {type(found).__name__}, expected (x, y), (x, y, classes) or (x, y, classes, keys)")
    x, y, classes, keys = (*found, None, None)[:4]
    return rows_of(x, y, classes, keys, what)


def _text(path: str) -> bool:
    return path.endswith((".jsonl", ".jsonl.gz"))


def _exists(path: str, beside: str) -> bool:
    try:
        return find(path, beside).exists()
    except InputError:
        return False
