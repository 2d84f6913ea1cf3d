"""See whether this machine has what a build relies on; of each thing what was found, and what to do about it.

Nothing is changed, and nothing is read but sizes and locks. Servers are asked for one small answer each; a server that
doesn't answer is no fault while the store has what it would be asked for.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bertir.doctor import store_files
from bertir.engines import DOCKER
from bertir.errors import BertirError, FetchError
from bertir.estimate import peak
from bertir.freshness import LOCKS, lock_checks
from bertir.installed import as_called
from bertir.materials import missing_materials, require_git
from bertir.mirror import debian_mirror
from bertir.model import GoogleZip
from bertir.redact import without_logins
from bertir.room import FULL_BYTES, free_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertir.builder import Builder

SECONDS_FOR_AN_ANSWER = 5.0
_WORKING_STATUS = 500  # below it a server has answered for itself, whatever it thinks of the question


class Verdict(Enum):
    """What is thought of a thing."""

    GOOD = "good"
    NOTE = "note"  # a build goes on, or sees to it by itself
    WRONG = "wrong"  # a build ends at it


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Args:
        advice: what to do about it; empty if it is good.
        error: what a build would end with.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    error: BertirError | None = None

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "verdict": self.verdict.value, "found": self.found, "advice": self.advice}


def good(name: str, found: str) -> Finding:
    return Finding(name=name, verdict=Verdict.GOOD, found=found)


def note(name: str, found: str, advice: str) -> Finding:
    return Finding(name=name, verdict=Verdict.NOTE, found=found, advice=as_called(advice))


def wrong(name: str, error: BertirError) -> Finding:
    return Finding(name=name, verdict=Verdict.WRONG, found=str(error), advice=error.advice, error=error)


def check_up(builder: Builder, *, offline: bool) -> list[Finding]:
    """Look at everything; `offline` asks no server. What follows from locks is left out if one of them is wrong."""
    checks = lock_checks(builder.layout)
    # An installed bertir has no host's lock: pip chose what it runs on.
    known = [name for name in LOCKS if name != "host" or (builder.layout.root / "pyproject.toml").is_file()]
    locks = [_lock(name, checks[name]) for name in known]
    findings = [_python(), _git(), _store(builder), *locks]
    if any(lock.error for lock in locks):
        return findings
    findings += [*(_engine(builder) if builder.chosen == DOCKER else _local(builder)), _disk(builder)]
    return findings if offline else [*findings, *_servers(builder)]


def _python() -> Finding:
    version = sys.version.split()[0]
    return good("python", f"{version}, {sys.prefix}")


def _git() -> Finding:
    try:
        require_git()
    except BertirError as error:
        return wrong("git", error)
    done = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False)
    return good("git", done.stdout.strip().removeprefix("git version "))


def _engine(builder: Builder) -> Iterator[Finding]:
    size = sum(layer.size for layer in builder.lock.layers)
    try:
        facts = builder.containers.facts()
        limits = builder.containers.not_limited
        loaded = builder.is_provided()
    except BertirError as error:
        yield wrong("engine", error)
        return
    found = f"{facts.name} {facts.version}, API {facts.api_version}, {facts.architecture}"
    if limits:
        advice = "A step that takes more than it should isn't stopped by it: see docs/security.md."
        yield note("engine", f"{found}; it can't limit {', '.join(limits)}", advice)
    else:
        yield good("engine", found)
    image = builder.lock.image_id
    if loaded:
        yield good("image", f"{image.short}, loaded, {size / 1e6:.0f} MB")
    else:
        yield note(
            "image", f"{image.short}, not loaded, {size / 1e6:.0f} MB", "The next build makes and loads it."
        )


def _local(builder: Builder) -> Iterator[Finding]:
    try:
        runtime = builder.runtime
    except BertirError as error:
        yield wrong("engine", error)
        return
    advice = "Use it for checkpoints that you trust: docs/security.md says what it lacks of a container."
    yield note("engine", f"local: steps run {runtime.where}, with little isolation", advice)
    if runtime.stated is None:
        yield good("image", f"{runtime.identity.short}, around bertir itself")
    elif runtime.find():
        yield good("virtualenv", "made")
    else:
        yield note("virtualenv", "not made", "The next build makes it.")


def _store(builder: Builder) -> Finding:
    store = builder.store
    builds = len(store.users()) - 1  # not this one
    used = f", in use by {builds} builds" if builds else ""
    held = sum(size for _, size in store_files(store))
    return good("store", f"{store.root}, {held / 1e6:.0f} MB{used}")


def _disk(builder: Builder) -> Finding:
    free = free_bytes(builder.store.root)
    needed = FULL_BYTES
    with contextlib.suppress(BertirError):  # told above: steps can't run in that, here
        needed += 0 if builder.is_provided() else peak(builder.runtime.works())
    found = f"{free / 1e6:.0f} MB free where the store is"
    if free >= needed:
        return good("disk", found)
    advice = "Free some room (`invoke gc`), or set BERTIR_STORE to a larger disk."
    return note("disk", f"{found}, {needed / 1e6:.0f} MB are needed for what steps run in", advice)


def _lock(name: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except BertirError as error:
        return wrong(f"{name} lock", error)
    return good(f"{name} lock", "fresh")


@dataclass(frozen=True, kw_only=True)
class _Server:
    """Somebody who would be asked for what is missing.

    Args:
        asks: ends well if it answers.
        missing: how many materials of it the store lacks.
    """

    name: str
    asks: Callable[[], object]
    missing: int


def _servers(builder: Builder) -> Iterator[Finding]:
    from bertir.source import upstream_url

    pinned = builder.pins.upstream.url
    url = upstream_url(builder.pins.upstream, builder.environment)
    source = "source" if url == pinned else "chosen source"
    missing = missing_materials(builder, None)

    def lacking(prefix: str) -> int:
        return sum(name.startswith(prefix) for name in missing)

    servers = [
        _Server(name="debian mirror", asks=lambda: _ask_debian(builder), missing=lacking("debian/")),
        _Server(name="package index", asks=_ask_index, missing=lacking("wheel/")),
        _Server(name=source, asks=lambda: _ask_source(url), missing=lacking("source/")),
    ]
    servers += _of_models(builder)
    for server in servers:
        try:
            server.asks()
        except BertirError as error:
            yield _unreachable(server, str(error).splitlines()[0])
        else:
            yield good(server.name, "answers")


def _of_models(builder: Builder) -> Iterator[_Server]:
    """Give who has the models' zips: the mirror that was named, or each host once; the wheels are the index's."""
    origin = builder.fetcher.origin
    if origin.folder is not None:  # looked into when something is wanted of it
        return
    hosts: dict[str, list[str]] = {}  # one URL of each model
    missing: Counter[str] = Counter()
    for model in builder.models.values():
        if not isinstance(model.archive, GoogleZip):
            continue
        url = origin.address(model.archive.url, model.archive.name)
        host = urlsplit(url).netloc
        hosts.setdefault(host, []).append(url)
        missing[host] += sum(builder.store.find(digest) is None for digest in model.files.values())
    for host, urls in hosts.items():
        yield _Server(name=f"{len(urls)} models", asks=partial(_ask, urls[0]), missing=missing[host])


def _unreachable(server: _Server, why: str) -> Finding:
    why = without_logins(why)
    if not server.missing:
        return note(server.name, why, "Nothing of it is needed: the store has it.")
    advice = {
        "debian mirror": "Name another by BERTIR_DEBIAN_MIRROR, or bring a bundle (`--bundle`).",
        "package index": "Configure pip for the index that this machine reaches, or bring a bundle (`--bundle`).",
        "source": "A build takes the same files from the package index instead.",
        "chosen source": "Name another by BERTIR_BERT_URL, or unset it: then the package index has the same files.",
    }.get(
        server.name,
        "A model of the package index (`invoke models`), a checkpoint of your own, a mirror (`--mirror`), or a bundle (`--bundle`) will do.",
    )
    return note(server.name, f"{why}; {server.missing} materials of it are missing", advice)


def _ask(url: str) -> None:
    from bertir.web import BrokenOffError, Patience, asked

    patience = Patience(attempts=1, connect=SECONDS_FOR_AN_ANSWER, silence=SECONDS_FOR_AN_ANSWER)
    try:
        with asked(url, {"Accept-Encoding": "identity"}, patience, what="an answer") as (response, _):
            status = response.status_code
    except BrokenOffError as error:
        raise FetchError(str(error)) from error
    if status >= _WORKING_STATUS:
        raise FetchError(f"it answers {status}")


def _ask_source(url: str) -> None:
    if url.startswith("https:"):  # else it is a folder
        _ask(url)


def _ask_debian(builder: Builder) -> None:
    mirror = debian_mirror(builder.environment)
    if mirror.startswith("file:"):
        return
    _ask(f"{mirror}/dists/{builder.intent.debian.suite}/InRelease")


def _ask_index() -> None:
    from bertir.wheelhouse import index_answers

    index_answers("invoke", SECONDS_FOR_AN_ANSWER)
