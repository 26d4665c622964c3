"""Ed25519 signatures of ledger lines: that whoever wrote a line held a key, and that nobody wrote the ledger anew since.

A key is configured by the environment: FEDUNLEARN_KEY names a file, as `openssl genpkey -algorithm ed25519` makes it. Where a
ledger has lines that another key signed, or none, FEDUNLEARN_VOUCH names the last of them by its hash: that it and all before
are as they were written. So it is good for that one line, and may be left set.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedunlearn.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = "FEDUNLEARN_KEY"
VOUCH = "FEDUNLEARN_VOUCH"
DIGITS = 8  # of a hash that must be named at least


@dataclass(frozen=True)
class Signer:
    """A private key.

    Args:
        private: the key.
    """

    private: "Ed25519PrivateKey"

    @classmethod
    def configured(cls, environ: Mapping[str, str] = os.environ) -> "Signer | None":
        """The key that the environment names; None where it names none.

        Raises:
            InputError: the file cannot be read, or is no Ed25519 private key in PEM without a password.
        """
        named = environ.get(KEY)
        return cls(_private(Path(named).expanduser())) if named else None

    @property
    def public(self) -> str:
        """The key to verify with: 32 bytes, hexadecimal."""
        return self.private.public_key().public_bytes_raw().hex()

    def sign(self, text: str) -> str:
        """64 bytes, hexadecimal."""
        return self.private.sign(text.encode()).hex()


def vouched(name: str) -> bool:
    """Whether whoever is at work vouches for the line of this hash, and so for those before it."""
    said = os.environ.get(VOUCH, "")
    return len(said) >= DIGITS and name.startswith(said)


@cache  # each command checks all lines, some several times
def verify(public: str, text: str, signature: str) -> bool:
    """Whether a signature of a text was made with the private half of a key; all hexadecimal."""
    _needed()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def read_public(path: Path) -> str:
    """A public key out of a file, as `openssl pkey -pubout` makes it; hexadecimal.

    Raises:
        InputError: the file cannot be read, or is no Ed25519 public key in PEM.
    """
    _needed()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a public key in PEM ({error}); openssl pkey -in KEY -pubout makes one") from error
    if not isinstance(found, Ed25519PublicKey):
        raise InputError(f"{path}: a {type(found).__name__}, expected an Ed25519 key")
    return found.public_bytes_raw().hex()


def _private(path: Path) -> "Ed25519PrivateKey":
    _needed()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    make = "openssl genpkey -algorithm ed25519 -out KEY makes one"
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InputError(f"{KEY}={path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{KEY}={path}: not a private key in PEM without a password ({error}); {make}") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise InputError(f"{KEY}={path}: a {type(found).__name__}, expected an Ed25519 key; {make}")
    return found


def _needed() -> None:
    """Signing is an extra."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise InputError('signatures need cryptography; run: pip install "fedunlearn[signatures]"') from None
