"""Keys and envelopes: what signs, what is refused, and that OpenSSL agrees."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from bertir import signature
from bertir.errors import ConfigurationError
from bertir.signature import (
    PAYLOAD_TYPE,
    SignatureError,
    generate_key,
    load_private_key,
    load_public_key,
    sign,
    signed_by,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

STATEMENT = b'{"_type": "https://in-toto.io/Statement/v1"}\n'


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "a.key"
    generate_key(path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "b.key"
    generate_key(path)
    return path


@pytest.fixture(scope="module")
def standing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "standing.key"
    generate_key(path)
    return path


def public(key: Path) -> SSlibKey:
    return load_public_key(key.with_name(f"{key.name}.pub"))


def test_what_a_key_signed_is_signed_by_it_and_by_no_other(key: Path, other: Path) -> None:
    envelope = sign(STATEMENT, load_private_key(key))
    assert signed_by(envelope, STATEMENT, public(key)) == public(key).keyid
    with pytest.raises(SignatureError, match="not signed by the key"):
        signed_by(envelope, STATEMENT, public(other))


def test_an_envelope_is_one_line_and_the_same_each_time(key: Path) -> None:
    envelope = sign(STATEMENT, load_private_key(key))
    assert envelope == sign(STATEMENT, load_private_key(key))
    assert (envelope.count(b"\n"), envelope[-1:]) == (1, b"\n")
    value = json.loads(envelope)
    assert base64.b64decode(value["payload"]) == STATEMENT
    assert value["payloadType"] == "application/vnd.in-toto+json"


def test_openssl_verifies_the_signature_by_the_public_key_alone(key: Path, tmp_path: Path) -> None:
    value = json.loads(sign(STATEMENT, load_private_key(key)))
    kind = value["payloadType"].encode()
    # DSSE's pre-authentication encoding, written out: https://github.com/secure-systems-lab/dsse
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(STATEMENT), STATEMENT)
    (tmp_path / "pae").write_bytes(encoded)
    (tmp_path / "sig").write_bytes(base64.b64decode(value["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", f"{key}.pub", "-rawin"]
    command += ["-in", str(tmp_path / "pae"), "-sigfile", str(tmp_path / "sig")]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (tmp_path / "pae").write_bytes(encoded + b" ")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_a_key_that_openssl_made_signs(tmp_path: Path) -> None:
    key = tmp_path / "o.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
    key.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout", "-out", f"{key}.pub"], check=True)
    assert signed_by(sign(STATEMENT, load_private_key(key)), STATEMENT, public(key))


def test_two_keys_sign_one_envelope(key: Path, other: Path) -> None:
    both = sign(STATEMENT, load_private_key(other), sign(STATEMENT, load_private_key(key)))
    assert signed_by(both, STATEMENT, public(key))
    assert signed_by(both, STATEMENT, public(other))
    assert sign(STATEMENT, load_private_key(key), both).count(b'"keyid"') == 2


def test_signatures_of_another_statement_are_not_taken_over(key: Path, other: Path) -> None:
    envelope = sign(STATEMENT, load_private_key(other), sign(b"{}", load_private_key(key)))
    with pytest.raises(SignatureError, match="not signed by the key"):
        signed_by(envelope, STATEMENT, public(key))


def test_another_statement_than_the_signed_one_is_refused(key: Path) -> None:
    envelope = sign(STATEMENT, load_private_key(key))
    with pytest.raises(SignatureError, match="another statement"):
        signed_by(envelope, STATEMENT + b" ", public(key))


def test_what_was_signed_as_something_else_is_refused(key: Path) -> None:
    value = json.loads(sign(STATEMENT, load_private_key(key)))
    value["payloadType"] = "text/plain"
    with pytest.raises(SignatureError, match="text/plain"):
        signed_by(json.dumps(value).encode(), STATEMENT, public(key))


def test_the_key_decides_and_not_the_id_that_an_envelope_says(key: Path, other: Path) -> None:
    value = json.loads(sign(STATEMENT, load_private_key(key)))
    value["signatures"][0]["keyid"] = public(other).keyid
    lying = json.dumps(value).encode()
    assert signed_by(lying, STATEMENT, public(key))
    with pytest.raises(SignatureError, match="not signed by the key"):
        signed_by(lying, STATEMENT, public(other))


def test_signatures_that_share_an_id_or_have_none_are_looked_at_each_by_itself(
    key: Path, other: Path
) -> None:
    both = json.loads(sign(STATEMENT, load_private_key(other), sign(STATEMENT, load_private_key(key))))
    for change in ({"keyid": "same"}, {"keyid": ""}):
        value = both | {"signatures": [signature | change for signature in both["signatures"]]}
        for signer in (key, other):
            assert signed_by(json.dumps(value).encode(), STATEMENT, public(signer)) == public(signer).keyid


@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_a_signature_with_any_bit_changed_is_none(standing_key: Path, place: int, bit: int) -> None:
    key = standing_key
    value = json.loads(sign(STATEMENT, load_private_key(key)))
    raw = bytearray(base64.b64decode(value["signatures"][0]["sig"]))
    raw[place] ^= 1 << bit
    value["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    with pytest.raises(SignatureError, match="not signed by the key"):
        signed_by(json.dumps(value).encode(), STATEMENT, public(key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENVELOPES = st.fixed_dictionaries(
    {
        "payload": JSON | st.just(base64.b64encode(STATEMENT).decode()),
        "payloadType": JSON | st.just(PAYLOAD_TYPE),
        "signatures": JSON
        | st.lists(st.fixed_dictionaries({"keyid": JSON, "sig": JSON | st.just("AAAA")}), max_size=2),
    }
)


@given(text=st.one_of(st.binary(max_size=64), JSON.map(json.dumps), ENVELOPES.map(json.dumps)))
def test_anything_else_than_an_envelope_is_refused_in_one_message(
    standing_key: Path, text: str | bytes
) -> None:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(SignatureError):
        signed_by(data, STATEMENT, public(standing_key))


def test_keys_are_written_for_their_owner_only(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in key.with_name("a.key.pub").read_bytes()


def test_a_key_is_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(ConfigurationError, match="a key isn't overwritten"):
        generate_key(key)
    assert key.read_bytes() == before
    key.unlink()
    with pytest.raises(ConfigurationError, match=r"a\.key\.pub exists"):
        generate_key(key)
    assert not key.exists()


def test_a_key_that_somebody_else_makes_meanwhile_stays_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    plain = signature._private_bytes  # between the look for an older key and the writing of the new one
    theirs: dict[str, bytes] = {}

    def meanwhile(new: Ed25519PrivateKey, passphrase: str) -> bytes:
        monkeypatch.setattr(signature, "_private_bytes", plain)
        generate_key(path)
        theirs.update({place.name: place.read_bytes() for place in tmp_path.iterdir()})
        return plain(new, passphrase)

    monkeypatch.setattr(signature, "_private_bytes", meanwhile)
    with pytest.raises(ConfigurationError, match="exists"):
        generate_key(path)
    assert {place.name: place.read_bytes() for place in tmp_path.iterdir()} == theirs


@pytest.mark.parametrize("path", [Path("/"), Path()])
def test_a_folder_is_no_name_of_a_key(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it is a folder"):
        generate_key(path)


def test_a_passphrase_may_be_any_bytes_but_not_too_many(tmp_path: Path) -> None:
    generate_key(tmp_path / "k", "\udcff")
    load_private_key(tmp_path / "k", "\udcff")
    with pytest.raises(ConfigurationError, match="can't encrypt"):
        generate_key(tmp_path / "l", "x" * 1024)
    assert not (tmp_path / "l").exists()


def test_what_dsse_lets_an_envelope_lack_or_have_is_no_fault(key: Path) -> None:
    value = json.loads(sign(STATEMENT, load_private_key(key)))
    del value["signatures"][0]["keyid"]
    value["more"] = 1
    assert signed_by(json.dumps(value).encode(), STATEMENT, public(key))


def test_a_key_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with pytest.raises(ConfigurationError, match="can't write"):
        generate_key(folder / "k")
    assert not folder.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_may_read_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(ConfigurationError, match="open to other users") as caught:
        load_private_key(key)
    assert "chmod 600" in caught.value.advice


def test_a_key_with_a_passphrase_is_read_with_it_only(tmp_path: Path) -> None:
    key = tmp_path / "k"
    generate_key(key, "secret words")
    assert b"ENCRYPTED" in key.read_bytes()
    assert sign(STATEMENT, load_private_key(key, "secret words"))
    for wrong in ("", "other words"):
        with pytest.raises(ConfigurationError) as caught:
            load_private_key(key, wrong)
        assert "secret words" not in str(caught.value)


def test_a_passphrase_for_a_key_without_one_is_told(key: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_private_key(key, "words")
    assert "BERTIR_KEY_PASSPHRASE" in caught.value.advice


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "ec.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="isn't an ed25519 key"):
        load_private_key(path)
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigurationError, match="isn't an ed25519 key"):
        load_public_key(path)


def test_a_private_key_in_place_of_the_public_one_is_told(key: Path) -> None:
    with pytest.raises(ConfigurationError, match="takes the public one") as caught:
        load_public_key(key)
    assert f"{key}.pub" in caught.value.advice


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n", os.urandom(64)],
    ids=["empty", "text", "cut off", "random"],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="isn't a public key"):
        load_public_key(path)
    with pytest.raises(ConfigurationError, match="isn't a private key"):
        load_private_key(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    for load in (load_private_key, load_public_key):
        with pytest.raises(ConfigurationError, match="can't read the key"):
            load(tmp_path / "none")
