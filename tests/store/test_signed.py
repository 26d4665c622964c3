"""Signatures: whose they are, and that nobody gets one for a ledger that somebody else wrote."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedunlearn.errors import InputError, StoreError
from fedunlearn.store import Ledger, Line
from fedunlearn.store.line import encoded
from fedunlearn.store.signatures import signed
from fedunlearn.store.signing import KEY, VOUCH, Signer, read_public
from tests.store.forging import added, filled, new_key, rewritten, stripped


def vouching(path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger whose lines somebody has looked at."""
    found = Ledger(path)
    monkeypatch.setenv(VOUCH, found.lines[-1].hash[:8])
    return found


def numbers(wrong: list[str]) -> list[int]:
    """The ledger lines that texts are about."""
    return [int(n) for text in wrong for n in re.findall(r"ledger line (\d+):", text)]


def later(line: Line) -> Line:
    return replace(line, by="eve") if line.number else line


def without_last(line: Line) -> Line:
    return stripped(line) if line.number == 2 else line


def test_a_ledger_that_was_written_anew_with_another_key_is_found(key: str, tmp_path: Path) -> None:
    filled(tmp_path / "ledger.jsonl")
    theirs = new_key(tmp_path / "key.pem")
    filled(tmp_path / "other.jsonl")
    assert Ledger(tmp_path / "other.jsonl").verify() == []
    assert len(Ledger(tmp_path / "other.jsonl").verify([key])) == 3
    assert read_public(tmp_path / "key.pub") == theirs != key


def test_a_key_takes_over_from_another_for_good(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    (tmp_path / "later").mkdir()
    later = new_key(tmp_path / "later" / "key.pem")
    assert Ledger(path).verify([key, later]) == [f"{path}: key {later[:16]} has signed no line"]
    first = os.environ[KEY]
    monkeypatch.setenv(KEY, str(tmp_path / "later" / "key.pem"))
    vouching(path, monkeypatch).append("trained", {"heads": {}})
    assert Ledger(path).verify([key, later]) == []
    assert [re.search(r"line \d", text)[0] for text in Ledger(path).verify([key])] == ["line 3"]  # type: ignore[index]
    assert Ledger(path).verify([later, key])  # what the later one signed came last
    filled(tmp_path / "anew.jsonl")
    anew = Ledger(tmp_path / "anew.jsonl").verify([key, later])  # whoever has the new key cannot rewrite what was before
    assert re.search(f"line 0: signed with key {later[:16]}, expected key {key[:16]}", anew[0])
    monkeypatch.setenv(KEY, first)
    vouching(path, monkeypatch).append("trained", {"heads": {}})
    (text,) = Ledger(path).verify([key, later])  # whoever has the old key writes on with it
    assert text.endswith(f"ledger line 4: signed with key {key[:16]}, expected key {later[:16]}")


def test_the_first_signed_line_vouches_for_those_before_there_was_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (one, two) = tmp_path / "ledger.jsonl", (new_key(tmp_path / f"{n}.pem") for n in ("one", "two"))
    monkeypatch.delenv(KEY, raising=False)
    filled(path)
    assert Ledger(path).unsigned == 0  # nothing is signed, and nothing vouched for
    assert len(Ledger(path).verify([one])) == 3
    monkeypatch.setenv(KEY, str(tmp_path / "one.pem"))
    vouching(path, monkeypatch).append("trained", {"heads": {}})
    assert Ledger(path).unsigned == 3
    assert Ledger(path).verify() == []
    assert numbers(Ledger(path).verify([one])) == [0, 1, 2]  # a key is asked for all, unless it is said that it came later
    assert Ledger(path).verify([one], since=3) == []
    assert numbers(Ledger(path).verify([one], since=2)) == [2]
    assert numbers(Ledger(path).verify(since=2)) == [2]
    (text,) = Ledger(path).verify([two], since=3)
    assert text.endswith(f"ledger line 3: signed with key {one[:16]}, expected key {two[:16]}")
    lines = path.read_bytes().splitlines(keepends=True)
    junk = replace(Ledger(path).lines[0], signature="ab")
    path.write_bytes(encoded(junk) + b"\n" + b"".join(lines[1:]))
    (text,) = Ledger(path).verify([one], since=3)
    assert "ledger line 0: its signature is not of this line" in text
    path.write_bytes(b"".join(lines[:3]))  # what is vouched for by nothing that is left
    assert len(Ledger(path).verify([one])) == 3


def test_a_signed_ledger_takes_no_line_without_a_key(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    before = path.read_bytes()
    monkeypatch.delenv(KEY)
    with pytest.raises(InputError, match="its lines are signed, and no key is configured"):
        Ledger(path).append("trained", {"heads": {}})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("what", "forge", "wrong"),
    [
        ("lines were changed and keep their signatures", lambda path: rewritten(path, later), [1, 2]),
        ("the last lost its signature", lambda path: rewritten(path, without_last), [2]),
        ("a line was added", added, [3]),
    ],
)
def test_nothing_is_signed_on_top_of_what_somebody_else_wrote(
    what: str, forge: Callable[[Path], None], wrong: list[int], key: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    forge(path)
    before = path.read_bytes()
    assert numbers(Ledger(path).verify()) == wrong, what
    for do in (Ledger(path).check_signatures, Ledger(path).signer, lambda: Ledger(path).append("trained", {"heads": {}})):
        with pytest.raises(StoreError, match=f"ledger line {wrong[0]}: .*nothing was done; find out who wrote it"):
            do()
    assert path.read_bytes() == before


@pytest.mark.parametrize("another", [False, True])
def test_whoever_takes_the_signatures_off_gets_no_honest_one(
    another: bool, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for lines without one, nor for lines that a key of their own has signed."""
    path = tmp_path / "ledger.jsonl"
    filled(path)
    new_key(tmp_path / "theirs.pem")
    theirs = Signer.configured({KEY: str(tmp_path / "theirs.pem")}) if another else None
    rewritten(path, lambda line: replace(stripped(line), by="eve", time="2001-01-01T00:00:00+00:00"), theirs)
    before, last = path.read_bytes(), Ledger(path).lines[-1].hash
    assert Ledger(path).verify() == []  # by itself it is as good as another
    assert numbers(Ledger(path).verify([key]))[:3] == [0, 1, 2]
    for said in ("", last[:7], last[1:], Ledger(path).lines[1].hash):  # it is the last line that must be vouched for
        monkeypatch.setenv(VOUCH, said)
        with pytest.raises(InputError, match=f"names key {key[:16]}; nothing was done.*{VOUCH}={last[:16]}"):
            Ledger(path).append("trained", {"heads": {}})
    assert path.read_bytes() == before
    vouching(path, monkeypatch).append("trained", {"heads": {}})
    Ledger(path).append("trained", {"heads": {}})  # from then on it is a ledger like others
    assert numbers(Ledger(path).verify([key]))[:3] == [0, 1, 2]  # and an auditor who knows that line 0 was signed finds it


def test_without_the_extra_signatures_are_said_to_be_unchecked(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = filled(tmp_path / "ledger.jsonl").lines[0]
    assert (signed(line), signed(stripped(line)), signed(replace(line, signature="ab"))) == ("valid", "none", "wrong")
    assert signed(stripped(line), [stripped(line), line]) == "missing"
    monkeypatch.setattr("fedunlearn.store.signatures.checkable", lambda: False)
    assert (signed(line), signed(stripped(line))) == ("unchecked", "none")


def test_an_unsigned_line_is_found_by_the_key_that_should_have_signed_it(tmp_path: Path) -> None:
    found = filled(tmp_path / "ledger.jsonl")
    assert found.verify() == []
    assert all(text.endswith(f"not signed, expected key {'a' * 16}") for text in found.verify(["a" * 64]))


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
