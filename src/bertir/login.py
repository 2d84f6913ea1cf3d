"""Logins for registries: those of `docker login`, and the tokens that a registry gives for them.

A login is sent to the registry that it is for, and to the one place that this registry names to give tokens; by https,
unless the registry is on this machine or the user said that plain http will do. No message has a login or a token in it.
"""

from __future__ import annotations

import base64
import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import docker.auth
from docker.errors import DockerException

from bertir.errors import ConfigurationError, FetchError
from bertir.redact import PASSPHRASE
from bertir.web import Patience, asked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertir.reference import Reference

_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+")
_MOST_ANSWER_BYTES = 1 << 16
_OK = 200


class RegistryError(FetchError):
    """A registry didn't do what it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What `docker login` left for a host."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)  # a token that tokens are given for

    def __bool__(self) -> bool:
        return bool(self.user or self.identity)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def known_login(host: str, environment: Mapping[str, str]) -> Known:
    """Give the login for a host, of Docker's configuration or of the helper that it names.

    Raises:
        ConfigurationError: the configuration can't be read, or the helper failed.
    """
    folder = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
    path = Path(folder) / "config.json"
    if not path.is_file():
        return Known()
    try:
        # docker-py would take what isn't JSON for a file of old, and find nothing.
        json.loads(path.read_bytes())
        # docker-py adds these to the process's own, from which the passphrase was taken.
        shared = {name: value for name, value in environment.items() if name != PASSPHRASE}
        config = docker.auth.load_config(config_path=str(path), credstore_env=shared)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a helper isn't there is an error below
            found = config.resolve_authconfig(host) or {}
    except (DockerException, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # What the error says isn't told: a helper may have printed anything.
        raise ConfigurationError(
            f"can't read the login for {host} from {path}, or from the helper that it names"
            f" ({type(error).__name__})",
            advice=f"Run: docker login {host}",
        ) from None
    return Known(
        user=found.get("Username") or found.get("username") or "",
        password=found.get("Password") or found.get("password") or "",
        identity=found.get("IdentityToken") or "",
    )


class Logins:
    """What is sent as `Authorization` to one registry, learnt from its challenges."""

    def __init__(
        self, reference: Reference, environment: Mapping[str, str], *, plain_http: bool, patience: Patience
    ) -> None:
        self._reference = reference
        self._environment = environment
        self._plain_http = plain_http
        self._patience = patience
        self._known: Known | None = None
        self._secrets: set[str] = set()

    @property
    def known(self) -> Known:
        if self._known is None:
            self._known = known_login(self._reference.host, self._environment)
            self._secrets |= {self._known.password, self._known.identity, self._known.basic[6:]} - {""}
        return self._known

    def answer(self, challenge: str, scope: str) -> str | None:
        """Give what to send for a challenge (`WWW-Authenticate`); None if there is nothing to send.

        Raises:
            RegistryError: the place that gives tokens isn't one, or gives none.
        """
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            token = self._token(dict(_PARAMETER.findall(rest)), scope)
            self._secrets.add(token)
            return f"Bearer {token}"
        if kind.lower() == "basic" and self.known.user:
            return self.known.basic
        return None

    def without_secrets(self, text: str) -> str:
        """Give what a server said, without what was sent to it."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text

    def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        host, realm = self._reference.host, challenge.get("realm", "")
        parts = urlsplit(realm)
        plain = self._plain_http or self._reference.is_loopback
        if parts.scheme != "https" and not (parts.scheme == "http" and plain):
            raise RegistryError(
                f"{host} sends to a place for tokens that isn't reached by https; nothing was sent there",
                advice="Ask who runs the registry; --plain-http allows http, where nobody listens in between.",
            )
        wanted = {
            name: value
            for name, value in (
                ("service", challenge.get("service", "")),
                ("scope", challenge.get("scope", "") or scope),
            )
            if value
        }
        what = f"a token for {self._reference.name}"
        if self.known.identity:
            form = {
                "grant_type": "refresh_token",
                "client_id": "bertir",
                "refresh_token": self.known.identity,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._asked(realm, headers, what, login="", body=urlencode(form | wanted).encode())
        else:
            url = f"{realm}{'&' if parts.query else '?'}{urlencode(wanted)}"
            answer = self._asked(url, {}, what, login=self.known.basic if self.known else "")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise RegistryError(f"{what}: the place that gives tokens gave none", advice=login_advice(host))
        return token

    def _asked(
        self, url: str, headers: Mapping[str, str], what: str, *, login: str, body: bytes | None = None
    ) -> dict[str, Any]:
        method = "GET" if body is None else "POST"
        with asked(url, headers, self._patience, what=what, method=method, login=login, body=body) as (
            response,
            chunks,
        ):
            if response.status_code != _OK:
                raise RegistryError(
                    f"{what}: refused, with status {response.status_code}",
                    advice=login_advice(self._reference.host),
                )
            data = read_at_most(chunks, _MOST_ANSWER_BYTES, what)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        return value if isinstance(value, dict) else {}


def login_advice(host: str) -> str:
    return f"Run: docker login {host} (bertir uses that login), and see that it may do this there."


def read_at_most(chunks: Iterator[bytes], most: int, what: str) -> bytes:
    """Read a small answer.

    Raises:
        RegistryError: it isn't small.
    """
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > most:
            raise RegistryError(f"{what}: the answer has more than {most} bytes; no such answer is that long")
    return bytes(data)
