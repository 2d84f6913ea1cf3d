"""References to what a registry holds: HOST[:PORT]/NAME[:TAG][@sha256:…], by the grammar of the OCI distribution.

There is no default registry: a name without a host is refused, and not sent to somebody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.redact import shown

if TYPE_CHECKING:
    from typing import Self

_MOST_OF_NAME = 255  # of host and repository together
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})/(?P<repository>{_PART}(?:/{_PART})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
_FORM = "Write it as HOST[:PORT]/NAME[:TAG][@sha256:…], in lower case but for HOST and TAG."


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where a registry keeps something, and what it must be.

    Args:
        host: with the port, if one was given.
        tag: a name that may come to mean something else; empty if none was given.
        digest: of the manifest; it decides where there is one.
    """

    host: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def from_str(cls, text: str) -> Self:
        """Read a reference; `Reference.from_str(str(r)) == r`.

        Raises:
            ConfigurationError: it isn't one, or names no host.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"{shown(text)} is no reference to a registry", advice=_FORM)
        host, repository = found["host"], found["repository"]
        # As Docker tells a host from the first part of a name.
        if not (set(".:") & set(host) or host == "localhost"):
            raise ConfigurationError(
                f"{shown(text)} doesn't say which registry: {host} is no host, but the first part of a name",
                advice=_FORM,
            )
        if len(host) + 1 + len(repository) > _MOST_OF_NAME:
            raise ConfigurationError(
                f"{shown(text)} is no reference to a registry: its name has over {_MOST_OF_NAME} characters"
            )
        digest = Digest.from_str(found["digest"]) if found["digest"] else None
        return cls(host=host, repository=repository, tag=found["tag"] or "", digest=digest)

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where nobody else listens."""
        return _LOOPBACK.fullmatch(re.sub(r":[0-9]+\Z", "", self.host)) is not None

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest, or else the tag."""
        return str(self.digest) if self.digest else self.tag

    def at(self, digest: Digest) -> Reference:
        """Give the reference that always means the same."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"
