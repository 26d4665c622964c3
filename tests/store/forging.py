"""Keys, ledgers, and what somebody makes of them who can hash, and holds no key."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedunlearn.store import Ledger, Line
from fedunlearn.store.ledger import START
from fedunlearn.store.line import encoded, hash_of
from fedunlearn.store.signing import Signer


def new_key(path: Path) -> str:
    """Writes both halves; the public one, hexadecimal."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key()
    path.with_suffix(".pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public.public_bytes_raw().hex()


def filled(path: Path) -> Ledger:
    found = Ledger(path)
    for i in range(3):
        found.append("trained", {"heads": {"m": f"v{i}"}})
    return found


def same(line: Line) -> Line:
    return line


def stripped(line: Line) -> Line:
    return replace(line, key="", signature="")


def rewritten(path: Path, change: Callable[[Line], Line] = same, signer: Signer | None = None) -> None:
    """Each line as `change` gives it, hashed anew; signed where there is a signer, else with the signature that it has."""
    previous, lines = START, []
    for line in map(change, Ledger(path).lines):
        bare = replace(line, previous=previous, **({"key": signer.public} if signer else {}))
        previous = hash_of(bare)
        lines.append(replace(bare, hash=previous, signature=signer.sign(previous) if signer else bare.signature))
    path.write_bytes(b"".join(encoded(line) + b"\n" for line in lines))


def added(path: Path, kind: str = "trained") -> None:
    """One more line, rightly hashed, that nobody signed."""
    last = Ledger(path).lines[-1]
    bare = replace(stripped(last), number=last.number + 1, kind=kind, body={"heads": {}}, previous=last.hash)
    with path.open("ab") as file:
        file.write(encoded(replace(bare, hash=hash_of(bare))) + b"\n")
