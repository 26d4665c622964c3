"""Texts as rows of token ids, without a vocabulary."""

import gzip
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedunlearn.data.arrays import most_bytes, rows_of
from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError
from fedunlearn.plain import loads

# A vocabulary made from the texts would be one more thing that was learned from them: the sites would have to agree on one,
# which tells all of them words of the others, and a word that stood only in forgotten texts would stay in it. A hash needs
# no agreement and remembers nothing: every site tokenises alone, to the same ids. The price is that words may share one.


def token_ids(texts: list[str], tokens: int, vocabulary: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The words of texts as whole numbers.

    Args:
        texts: N texts.
        tokens: how many words of each are read, L.
        vocabulary: ids are below this; words have 1 to vocabulary - 1.

    Returns:
        Ids [N, L], float32 that holds whole numbers; 0 pads texts of fewer words, at their end.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # slow to import, and only needed here
    from sklearn.utils import murmurhash3_32

    words_of = HashingVectorizer().build_analyzer()  # lower case, words of two or more letters or digits

    @lru_cache(maxsize=1 << 16)
    def id_of(word: str) -> int:
        return 1 + int(murmurhash3_32(word, positive=True)) % (vocabulary - 1)

    ids = np.zeros((len(texts), tokens), np.float32)
    for row, text in zip(ids, texts, strict=True):
        words = words_of(text)[:tokens]
        row[: len(words)] = [id_of(w) for w in words]
    return ids


def read_texts(path: Path, tokens: int, vocabulary: int, what: str) -> Rows:
    """A .jsonl or .jsonl.gz file: one object a line, with `text`, `label` and, optionally, `key`.

    Args:
        path: the file.
        tokens: how many words of a text are read.
        vocabulary: how many ids there are.
        what: what it is, to say in an error.

    Returns:
        Rows of token ids [N, tokens]; classes are the labels, sorted, and keys are line numbers from 0 where none are given.

    Raises:
        InputError: a line is something else; says which.
    """
    texts: list[str] = []
    labels: list[str | int] = []
    keys: list[str] = []
    named = 0
    for number, line in enumerate(_lines(path, what)):
        if not line.strip():
            continue
        text, label, key = _example(line, f"{what}: line {number + 1}")
        texts.append(text)
        labels.append(label)
        named += key is not None
        keys.append(str(number) if key is None else str(key))
    if 0 < named < len(texts):
        raise InputError(f"{what}: {named} of {len(texts)} lines have a key; give one to each, or to none")
    if not texts:
        raise InputError(f"{what}: holds no texts; expected one JSON object a line, with text and label")
    classes = sorted(set(labels), key=lambda c: (isinstance(c, str), c))  # numbers in their own order
    index = {c: i for i, c in enumerate(classes)}
    return rows_of(token_ids(texts, tokens, vocabulary), [index[c] for c in labels], classes, keys, what)


def _lines(path: Path, what: str) -> Iterator[str]:
    try:
        most = left = most_bytes(path)
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            while line := file.readline(left + 1):
                left -= len(line)
                if left < 0:
                    raise ValueError(f"it unpacks to more than {most} characters")
                yield line
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{what}: not readable as UTF-8 text: {error}") from error


def _example(line: str, where: str) -> tuple[str, str | int, str | int | None]:
    try:
        found = loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict) or not {"text", "label"} <= found.keys():
        held = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{where}: expected an object with text and label, found {held}")
    text, label, key = found["text"], found["label"], found.get("key")
    if not isinstance(text, str):
        raise InputError(f"{where}: text is {text!r}, expected a string")
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise InputError(f"{where}: label is {label!r}, expected a class name or a whole number")
    if isinstance(key, bool) or not isinstance(key, str | int | None):
        raise InputError(f"{where}: key is {key!r}, expected a string or a whole number")
    return text, label, key
