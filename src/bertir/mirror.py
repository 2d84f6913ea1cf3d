"""Which Debian mirror to take packages from: the one this machine uses itself.

No file of the project names a host, so a company's mirror or an air-gapped one works by configuration.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from bertir.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "BERTIR_DEBIAN_MIRROR"
_ADVICE = f"Set {VARIABLE} to a Debian mirror: the URL of the folder that holds dists/ and pool/."
_FORMAT = "$(CREATED_BY)\t$(ORIGIN)\t$(LABEL)\t$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)"


def debian_mirror(environment: Mapping[str, str]) -> str:
    """Give the base URL of a Debian mirror, without a slash at its end.

    Raises:
        ConfigurationError: `BERTIR_DEBIAN_MIRROR` is no URL, or isn't set and apt knows no mirror.
    """
    chosen = environment.get(VARIABLE, "")
    if chosen:
        if not (_is_url(chosen) or chosen.startswith("file:///")):
            raise ConfigurationError(
                f"{VARIABLE} must be an http, https or file URL, and is {chosen!r}", advice=_ADVICE
            )
        return chosen.rstrip("/")
    for found in mirrors_of(_index_targets()):
        return found
    raise ConfigurationError("this machine's apt configuration names no Debian mirror", advice=_ADVICE)


def mirrors_of(index_targets: str) -> list[str]:
    """Pick the main archive's mirrors from what `apt-get indextargets` says, in apt's order.

    A mirror whose index apt has read calls itself Debian. Before the first `apt-get update` nothing is known
    but the configuration: then a repository at `…/debian` with a suite of plain name is taken for one.
    """
    named: list[str] = []
    likely: list[str] = []
    for line in index_targets.splitlines():
        created_by, origin, label, release, component, url = line.split("\t")
        if created_by != "Packages" or component != "main" or not _is_url(url):
            continue
        base = url.rstrip("/")
        if origin == label == "Debian":
            named.append(base)
        elif not origin and "-" not in release and base.endswith("/debian"):
            likely.append(base)
    return list(dict.fromkeys(named + likely))


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and not any(character.isspace() for character in text)


def _index_targets() -> str:
    if shutil.which("apt-get") is None:
        raise ConfigurationError(
            "no Debian mirror is known: this machine has no apt to take one from", advice=_ADVICE
        )
    run = subprocess.run(
        ["apt-get", "indextargets", "--format", _FORMAT], capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise ConfigurationError(
            f"no Debian mirror is known: apt-get indextargets failed: {run.stderr.strip()}", advice=_ADVICE
        )
    return run.stdout
