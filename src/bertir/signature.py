"""Signatures: DSSE envelopes by ed25519 keys, offline. All use of securesystemslib and cryptography is here.

Keys are PEM files as OpenSSL has them: PKCS #8, and SubjectPublicKeyInfo. The envelope is in-toto's: its payload is
the statement, byte for byte (https://github.com/secure-systems-lab/dsse).
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as NotSigned
from securesystemslib.signer import (  # type: ignore[attr-defined]  # public, though not in its __all__
    CryptoSigner,
    SSlibKey,
)

from bertir.errors import ConfigurationError, VerificationError
from bertir.redact import PASSPHRASE
from bertir.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MOST_BYTES = 1 << 16


class SignatureError(VerificationError):
    """The envelope isn't one, holds another statement, or wasn't signed by that key."""


def generate_key(path: Path, passphrase: str = "") -> tuple[Path, str]:
    """Write a new private key to `path` (0600), and its public key beside it, as `.pub`.

    Returns:
        The public key's path and the key's id.

    Raises:
        ConfigurationError: one of the two exists, can't be written, or would lie where others may replace it; nothing
            is left behind.
    """
    if not path.name:
        raise ConfigurationError(f"can't write {path}: it is a folder", advice="Name a file by --key.")
    public_path = path.with_name(f"{path.name}.pub")
    for existing in (path, public_path):
        if existing.exists() or existing.is_symlink():
            raise ConfigurationError(
                f"{existing} exists, and a key isn't overwritten", advice="Choose another name by --key."
            )
    _refuse_open_folder(path)
    key = Ed25519PrivateKey.generate()
    private = _private_bytes(key, passphrase)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made: list[Path] = []  # what another process made meanwhile under these names is not ours to remove
    try:
        for place, mode, data in ((path, 0o600, private), (public_path, 0o644, public)):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            made.append(place)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        for place in made:
            place.unlink(missing_ok=True)
        raise ConfigurationError(f"can't write {error.filename or place}: {error.strerror}") from error
    return public_path, SSlibKey.from_crypto(key.public_key()).keyid


def _private_bytes(key: Ed25519PrivateKey, passphrase: str) -> bytes:
    try:
        encryption = BestAvailableEncryption(os.fsencode(passphrase)) if passphrase else NoEncryption()
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    except ValueError as error:  # too long a passphrase
        raise ConfigurationError(f"can't encrypt the key: {error}", advice=f"See {PASSPHRASE}.") from error


def load_private_key(path: Path, passphrase: str = "") -> CryptoSigner:
    """Read a private key.

    Raises:
        ConfigurationError: it can't be read, is open to others or another user's, lies where others may replace it,
            or isn't an ed25519 key.
    """
    _refuse_open_folder(path)
    data = _read(path, allowed=lambda status: _refuse_open_key(path, status))
    password = os.fsencode(passphrase) if passphrase else None
    key = _parsed(path, "private", lambda: load_pem_private_key(data, password))
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} isn't an ed25519 key", advice="Make one: invoke keygen")
    return CryptoSigner(key)


def load_public_key(path: Path) -> SSlibKey:
    """Read a public key.

    Raises:
        ConfigurationError: it can't be read, or isn't an ed25519 public key.
    """
    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise ConfigurationError(
            f"{path} is a private key; verifying takes the public one", advice=f"Is it {path}.pub?"
        )
    key = _parsed(path, "public", lambda: load_pem_public_key(data))
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path} isn't an ed25519 key")
    return SSlibKey.from_crypto(key)


def sign(statement: bytes, signer: CryptoSigner, earlier: bytes | None = None) -> bytes:
    """Give the envelope of a statement: signed by this key, and by whoever signed the same statement earlier.

    Raises:
        SignatureError: what there is of an earlier envelope isn't one.
    """
    envelope = Envelope(statement, PAYLOAD_TYPE, {})
    if earlier is not None:
        former = _envelope(earlier)
        if former.payload == statement and former.payload_type == PAYLOAD_TYPE:
            envelope = former
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def signed_by(envelope: bytes, statement: bytes, key: SSlibKey) -> str:
    """See that the envelope holds this statement, signed by this key; give the key's id.

    Raises:
        SignatureError: it doesn't.
    """
    read = _envelope(envelope, numbered=True)
    if read.payload_type != PAYLOAD_TYPE:
        raise SignatureError(f"its payload is a {read.payload_type!r}, and expected is {PAYLOAD_TYPE!r}")
    if read.payload != statement:
        raise SignatureError("what was signed is another statement than the one beside it")
    # The key decides, not the id that an envelope says of itself: DSSE has it as a hint only.
    signatures = list(read.signatures.values())
    for signature in signatures:
        signature.keyid = key.keyid
        try:
            Envelope(read.payload, read.payload_type, {key.keyid: signature}).verify([key], 1)
        except NotSigned:
            continue
        return str(key.keyid)
    raise SignatureError(f"not signed by the key {key.keyid} (it has {len(signatures)} signatures)")


def _envelope(data: bytes, *, numbered: bool = False) -> Envelope:
    """Read an envelope; `numbered`: with its signatures under numbers, as several may have one id, or none."""
    try:
        value: Any = json.loads(data)
        # DSSE: unknown fields are ignored, and a `keyid` that isn't there is an empty one.
        signatures = [
            {"keyid": "", **signature} | ({"keyid": str(number)} if numbered else {})
            for number, signature in enumerate(value["signatures"])
        ]
        envelope = Envelope.from_dict(
            {"payload": value["payload"], "payloadType": value["payloadType"], "signatures": signatures}
        )
    except Exception as error:  # the library raises whatever its parts do, on anything malformed
        raise SignatureError(f"not a DSSE envelope ({type(error).__name__}: {error})") from error
    if not isinstance(envelope.payload_type, str):
        raise SignatureError("not a DSSE envelope: its payloadType is no text")
    return envelope


def _parsed(path: Path, kind: str, parse: Callable[[], Any]) -> Any:  # noqa: ANN401 - one of many kinds of keys
    try:
        return parse()
    except (
        TypeError
    ) as error:  # "password was not given but private key is encrypted", or the other way round
        raise ConfigurationError(f"can't read {path}: {error}", advice=f"See {PASSPHRASE}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"{path} isn't a {kind} key in PEM, or its passphrase is another",
            advice="Make one: invoke keygen",
        ) from error


def _refuse_open_key(path: Path, status: os.stat_result) -> None:
    """Look at the open file itself: of a link, at what it leads to."""
    if (mode := stat.S_IMODE(status.st_mode)) & 0o077:
        raise ConfigurationError(
            f"{path} is open to other users (mode {mode:04o}), and a private key must not be",
            advice=f"If nobody has read it: chmod 600 {shlex.quote(str(path))}",
        )
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} belongs to another user (number {status.st_uid}, and this is {os.geteuid()})",
            advice="A private key is its owner's alone. Sign as that user.",
        )


def _refuse_open_folder(path: Path) -> None:
    """Refuse a folder in which others may put another key in the place of this one (in /tmp they may not)."""
    try:
        mode = path.absolute().parent.stat().st_mode
    except (OSError, ValueError):
        return  # said where the key is opened
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"{path} is in a folder that every user may write to (mode {stat.S_IMODE(mode):04o})",
            advice="They may replace a key there by their own. Keep keys in a folder of yours.",
        )


def _read(path: Path, *, allowed: Callable[[os.stat_result], None] = lambda _: None) -> bytes:
    try:
        return read_small(path, _MOST_BYTES, allowed=allowed)
    except OSError as error:
        raise ConfigurationError(f"can't read the key {path}: {error.strerror}") from error
