"""An answer in a log: marked lines of compressed text, each with its number and the hash of the whole.

The log is the one way back that every SuperLink has. It is shared with whatever else is printed, so what is ours is found by
its mark, and believed only when all lines are there, once, and hash to what each of them says.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from fedunlearn.errors import SiteError
from fedunlearn.plain import loads

MARK = "fedunlearn-answer"
SAYS = "fedunlearn-says "  # at the beginning of a line that tells how far it is
CHUNK = 3000  # characters a line
MOST_BYTES = 64 << 20  # of the answer, before it is compressed
LINE = re.compile(
    rf"{MARK} (?P<token>[\w.-]+) (?P<number>\d{{1,6}})/(?P<count>\d{{1,6}}) (?P<hash>[0-9a-f]{{64}}) (?P<data>[A-Za-z0-9+/=]*)"
)


def lines(token: str, plain: Any) -> Iterator[str]:
    """An answer as lines.

    Args:
        token: of this very order.
        plain: what JSON takes.

    Raises:
        SiteError: it is too big.
    """
    raw = json.dumps(plain, separators=(",", ":")).encode()
    if len(raw) > MOST_BYTES:
        raise SiteError(
            f"the answer has {len(raw)} bytes, at most {MOST_BYTES} come home in a log; read it where the family is"
        )
    text, digest = base64.b64encode(zlib.compress(raw, 9)).decode(), blake3(raw).hexdigest()
    chunks = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    for number, chunk in enumerate(chunks, 1):
        yield f"{MARK} {token} {number}/{len(chunks)} {digest} {chunk}"


class Reader:
    """Collects an answer's lines out of a log, whatever else stands between them.

    Args:
        token: of the order.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self._chunks: dict[tuple[str, int], dict[int, str]] = {}  # (hash, how many) -> number -> text

    def take(self, line: str) -> bool:
        """Look at one line of the log; says whether it was one of an answer."""
        found = LINE.fullmatch(line.strip())
        if found is None or found["token"] != self.token:
            return False
        held = self._chunks.setdefault((found["hash"], int(found["count"])), {})
        held[int(found["number"])] = found["data"]
        return True

    @property
    def whole(self) -> bool:
        """Whether an answer is there."""
        return any(len(held) == count for (_, count), held in self._chunks.items())

    def answer(self) -> Any:
        """The answer.

        Raises:
            SiteError: lines are missing, were changed, or there are two answers.
        """
        if len(self._chunks) != 1:
            what = "no answer" if not self._chunks else f"{len(self._chunks)} different answers"
            raise SiteError(f"the log of the run holds {what}, expected one; look at that log")
        (((digest, count), held),) = self._chunks.items()
        if set(held) != set(range(1, count + 1)):
            raise SiteError(f"the log of the run holds {len(held)} of {count} lines of its answer; look at that log")
        try:
            opened = zlib.decompressobj()
            raw = opened.decompress(
                base64.b64decode("".join(held[i] for i in range(1, count + 1)), validate=True), MOST_BYTES + 1
            )
            if len(raw) > MOST_BYTES or blake3(raw).hexdigest() != digest:
                raise ValueError("content and hash do not agree")
            return loads(raw)
        except (ValueError, zlib.error) as error:
            raise SiteError(f"the answer in the log of the run was changed or damaged ({error}); look at that log") from error
