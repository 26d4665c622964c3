"""Who wrote a line, with which key; that a second operator waits; that a full disk leaves the ledger as it was."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedunlearn.errors import InputError, StoreError
from fedunlearn.runtime import verify
from fedunlearn.store import Ledger, Line, ledger
from fedunlearn.store.line import encoded
from fedunlearn.store.signing import KEY, Signer, read_public


def new_key(path: Path) -> str:
    """Writes both halves; the public one, hexadecimal."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key()
    path.with_suffix(".pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public.public_bytes_raw().hex()


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY, str(tmp_path / "key.pem"))
    return new_key(tmp_path / "key.pem")


def filled(path: Path) -> Ledger:
    found = Ledger(path)
    for i in range(3):
        found.append("trained", {"heads": {"m": f"v{i}"}})
    return found


def test_a_line_says_who_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ledger.BY, "ada")
    line = Ledger(tmp_path / "ledger.jsonl").append("trained", {"heads": {}})
    other = Ledger(tmp_path / "ledger.jsonl", by="grace").append("trained", {"heads": {}})
    assert (line.by, other.by) == ("ada", "grace")
    assert {"fedunlearn", "torch"} <= set(line.code)
    assert Ledger(tmp_path / "ledger.jsonl").lines == [line, other]


@pytest.mark.parametrize("what", ["by", "torch", "key", "signature"])
def test_whatever_a_line_says_cannot_be_changed(what: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    line = filled(path).lines[1]
    assert verify(Ledger(path), [key]) == []
    said = {"by": line.by, "torch": line.code["torch"], "key": line.key, "signature": line.signature}[what]
    one, two, three, _ = path.read_bytes().split(b"\n")
    two = two.replace(f'"{what}":"{said}"'.encode(), f'"{what}":"{said[:-1]}{chr(ord(said[-1]) ^ 1)}"'.encode())
    path.write_bytes(b"\n".join([one, two, three, b""]))
    if what == "signature":
        assert re.search("ledger line 1: its signature is not of this line", verify(Ledger(path))[0])
    else:
        with pytest.raises(StoreError, match="line 2: its content does not hash to what it says"):
            Ledger(path)


def test_a_ledger_that_was_written_anew_with_another_key_is_found(key: str, tmp_path: Path) -> None:
    filled(tmp_path / "ledger.jsonl")
    theirs = new_key(tmp_path / "key.pem")
    filled(tmp_path / "other.jsonl")
    assert verify(Ledger(tmp_path / "other.jsonl")) == []
    assert len(verify(Ledger(tmp_path / "other.jsonl"), [key])) == 3
    assert read_public(tmp_path / "key.pub") == theirs != key


def test_a_key_takes_over_from_another_for_good(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    (tmp_path / "later").mkdir()
    later = new_key(tmp_path / "later" / "key.pem")
    assert verify(Ledger(path), [key, later]) == [f"{path}: key {later[:16]} has signed no line"]
    first = os.environ[KEY]
    monkeypatch.setenv(KEY, str(tmp_path / "later" / "key.pem"))
    Ledger(path).append("trained", {"heads": {}})
    assert verify(Ledger(path), [key, later]) == []
    assert [re.search(r"line \d", text)[0] for text in verify(Ledger(path), [key])] == ["line 3"]  # type: ignore[index]
    assert verify(Ledger(path), [later, key])  # what the later one signed came last
    filled(tmp_path / "anew.jsonl")
    anew = verify(Ledger(tmp_path / "anew.jsonl"), [key, later])  # whoever has the new key cannot rewrite what was before
    assert re.search(f"line 0: signed with key {later[:16]}, expected key {key[:16]}", anew[0])
    monkeypatch.setenv(KEY, first)
    Ledger(path).append("trained", {"heads": {}})
    (text,) = verify(Ledger(path), [key, later])  # whoever has the old key writes on with it
    assert text.endswith(f"ledger line 4: signed with key {key[:16]}, expected key {later[:16]}")


def test_the_first_signed_line_vouches_for_those_before_there_was_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (one, two) = tmp_path / "ledger.jsonl", (new_key(tmp_path / f"{n}.pem") for n in ("one", "two"))
    monkeypatch.delenv(KEY, raising=False)
    filled(path)
    assert Ledger(path).unsigned == 0  # nothing is signed, and nothing vouched for
    assert len(verify(Ledger(path), [one])) == 3
    monkeypatch.setenv(KEY, str(tmp_path / "one.pem"))
    Ledger(path).append("trained", {"heads": {}})
    assert Ledger(path).unsigned == 3
    assert verify(Ledger(path), [one]) == []
    (text,) = verify(Ledger(path), [two])
    assert text.endswith(f"ledger line 3: signed with key {one[:16]}, expected key {two[:16]}")
    lines = path.read_bytes().splitlines(keepends=True)
    junk = replace(Ledger(path).lines[0], signature="ab")
    path.write_bytes(encoded(junk) + b"\n" + b"".join(lines[1:]))
    (text,) = verify(Ledger(path), [one])
    assert "ledger line 0: its signature is not of this line" in text
    path.write_bytes(b"".join(lines[:3]))  # what is vouched for by nothing that is left
    assert len(verify(Ledger(path), [one])) == 3


def test_a_signed_ledger_takes_no_line_without_a_key(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    before = path.read_bytes()
    monkeypatch.delenv(KEY)
    with pytest.raises(InputError, match="its lines are signed, and no key is configured"):
        Ledger(path).append("trained", {"heads": {}})
    assert path.read_bytes() == before


def test_an_unsigned_line_is_found_by_the_key_that_should_have_signed_it(tmp_path: Path) -> None:
    found = filled(tmp_path / "ledger.jsonl")
    assert verify(found) == []
    assert all(text.endswith(f"not signed, expected key {'a' * 16}") for text in verify(found, ["a" * 64]))


def test_wrong_keys_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Signer.configured({KEY: str(path)})
    path.write_text("no key")
    with pytest.raises(InputError, match=r"not a private key in PEM.*openssl genpkey"):
        Signer.configured({KEY: str(path)})
    with pytest.raises(InputError, match="not a public key in PEM"):
        read_public(path)
    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InputError, match="expected an Ed25519 key"):
        Signer.configured({KEY: str(path)})
    path.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="expected an Ed25519 key"):
        read_public(path)


HOLDS = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A ledger that another process is at work on."""
    path = tmp_path / "ledger.jsonl"
    filled(path)
    command = [sys.executable, "-c", HOLDS, f"{path}.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield path
        other.communicate("")


def test_a_second_operator_is_told(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LOCK_SECONDS", 0.1)
    before = held.read_bytes()
    with pytest.raises(StoreError, match="another command is at work on this family; wait until it is done"):
        Ledger(held).append("trained", {"heads": {}})
    with pytest.raises(StoreError, match="another command is at work"), Ledger(held).alone():
        pass
    assert held.read_bytes() == before


@pytest.mark.parametrize("after", [0, 5])
def test_a_full_disk_leaves_the_ledger_as_it_was(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    mine = filled(path)
    before = path.read_bytes()

    def full(line: Line) -> bytes:
        with path.open("ab") as file:  # so much got there
            file.write(b"{" * after)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: full(mine.lines[-1]))
        with pytest.raises(OSError, match="No space left on device") as said:
            mine.append("trained", {"heads": {}})
    assert said.value.filename == str(path)
    assert path.read_bytes() == before
    assert mine.append("trained", {"heads": {}}).number == 3
    assert len(Ledger(path).lines) == 4
