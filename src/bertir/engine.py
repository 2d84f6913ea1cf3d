"""The container engine: find it, load an image, run one step. All use of docker-py is here.

A step's container has no network, a read-only root, no capabilities, no way to gain privileges, a user
that isn't root, limits on memory and processes, its inputs mounted read-only and one writable folder, `/out`.
"""

from __future__ import annotations

import contextlib
import signal
import stat
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount, Ulimit

from bertir.errors import (
    ConfigurationError,
    EngineError,
    ImageError,
    MissingOutputError,
    StepError,
    StepTimeoutError,
)
from bertir.redact import printable
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from docker.context import Context
    from docker.models.containers import Container
    from docker.tls import TLSConfig

    from bertir.digest import Digest

STEP_USER = "65532:65532"
# A step speaks to the user on lines that begin so; everything else it prints is its log.
MESSAGE_PREFIX = "bertir-step: "
LOG_LINES_SHOWN = 20
LOG_BYTES = 16 << 20
ANSWER_SECONDS = 20
# Loading the image or waiting for a silent step may take long; the step's own time limit is what ends it.
CALL_SECONDS = 7200
KILLED = 137
# Of a program that a signal ended, an engine tells 128 and the signal's number.
CRASHES = {
    128 + number: signal.Signals(number).name
    for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one step may use. None of it is part of a derivation: it can't change what comes out."""

    memory_bytes: int = 8 << 30
    scratch_bytes: int = 2 << 30
    pids: int = 512
    output_bytes: int = 16 << 30
    seconds: float = 3600


@dataclass(frozen=True, kw_only=True)
class Command:
    """One step as the engine sees it.

    Args:
        name: of the step, for messages and labels.
        arguments: the program and its arguments, by paths inside the container.
        inputs: path inside the container -> file on the host, mounted read-only.
        outputs: names of the files that the step must leave in `/out`.
        environment: on top of the image's own.
        surroundings: what should not matter; `invoke check` varies it.
    """

    name: str
    arguments: Sequence[str]
    inputs: Mapping[str, Path]
    outputs: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    surroundings: Surroundings = field(default_factory=Surroundings)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A step that ended well: its outputs (regular files, all there), its log, its seconds."""

    outputs: Mapping[str, Path]
    log: Path
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What the engine says of itself; goes into reports, never into a key."""

    name: str
    version: str
    api_version: str
    architecture: str
    kernel: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


class Engine:
    """A connection to a Docker API. Made by `connect`, closed by its `with` block."""

    def __init__(self, client: docker.DockerClient, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def facts(self) -> EngineFacts:
        with _as_engine_error("ask the engine for its version"):
            version = self._client.version()
        components = version.get("Components") or [{"Name": "Engine"}]
        return EngineFacts(
            name=components[0]["Name"],
            version=version.get("Version", ""),
            api_version=version.get("ApiVersion", ""),
            architecture=version.get("Arch", ""),
            kernel=version.get("KernelVersion", ""),
        )

    def image_folder(self) -> Path | None:
        """Give the folder in which the engine keeps images, if that is on this machine.

        Of Docker with its usual storage alone, whose need of room was measured.
        """
        if not str(self._client.api.base_url).startswith("http+docker"):  # not by a Unix socket
            return None
        with _as_engine_error("ask the engine where it keeps images"):
            told = self._client.info()
        folder = Path(told.get("DockerRootDir") or "/nonexistent")
        return folder if told.get("Driver") == "overlay2" and folder.is_dir() else None

    def require_architecture(self, architecture: str) -> None:
        """Refuse an engine that would have to emulate the image's processor.

        Raises:
            EngineError: it runs on another architecture.
        """
        found = self.facts().architecture
        if found != architecture:
            raise EngineError(
                f"the engine runs on {found}, and the image is for {architecture}",
                advice="Point DOCKER_HOST or a docker context to an engine on such a machine.",
            )

    def find_image(self, digests: Sequence[Digest]) -> str | None:
        """Give the ID of the loaded image that is reported under one of `digests`, if there is one."""
        for digest in digests:
            with _as_engine_error("look for the image"), contextlib.suppress(ImageNotFound):
                reported = self._reported_id(str(digest))
                if reported in {str(known) for known in digests}:
                    return reported
        return None

    def load_image(self, archive: Iterator[bytes], reference: str, digests: Sequence[Digest]) -> str:
        """Load an archive, then compare the ID that the engine reports for `reference`.

        Engines of before the containerd image store report the digest of the image's configuration as its ID,
        later ones that of its manifest: `digests` holds both.

        Raises:
            ImageError: the engine refuses the archive, or reports another ID.
        """
        with _as_engine_error("load the image", ImageError):
            for event in self._client.api.load_image(archive):  # type: ignore[no-untyped-call]
                if "error" in event:
                    raise ImageError(f"the engine refused the image: {event['error']}")
            try:
                reported = self._reported_id(reference)
            except ImageNotFound:
                reported = "no image"
        if reported not in {str(digest) for digest in digests}:
            raise ImageError(
                f"the engine reports another ID than the lock for {reference}"
                f"\n  expected {' or '.join(str(digest) for digest in digests)}\n  found    {reported}",
                advice="Run `invoke image` again; if it stays so, the engine rewrites images: please report which it is.",
            )
        return reported

    def _reported_id(self, name: str) -> str:
        # The lower interface: `client.images.get` would inspect twice.
        return str(self._client.api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]

    def remove_image(self, reference: str) -> None:
        with _as_engine_error("remove an image"), contextlib.suppress(ImageNotFound):
            self._client.api.remove_image(reference, noprune=False)

    def remove_abandoned(self, is_abandoned: Callable[[Path], bool]) -> int:
        """Remove containers that killed processes left behind; give their number.

        Those of stores inside this one's too: a rebuild has a store of its own there, which nobody opens again.

        Args:
            is_abandoned: tells of an output volume's folder whether no living process holds it.
        """
        removed = 0
        with _as_engine_error("look for containers left behind"):
            ours: dict[str, str | list[str] | bool] = {"label": "bertir.folder"}
            for container in self._client.containers.list(all=True, filters=ours, ignore_removed=True):
                if not Path(container.labels["bertir.folder"]).is_relative_to(self._folder):
                    continue
                if is_abandoned(Path(container.labels.get("bertir.volume", ""))):
                    with contextlib.suppress(NotFound):
                        container.remove(force=True, v=True)
                        removed += 1
        return removed

    @contextlib.contextmanager
    def run(self, image: str, command: Command, scratch: Path) -> Iterator[Finished]:
        """Run a step to its end and give its outputs, which last as long as the `with` block.

        Args:
            image: an image ID.
            command: the step.
            scratch: an empty folder of the caller's (0700), on the store's disk: the output volume is made in it.

        Raises:
            StepError: the step refused its input, or failed; its log is kept and named.
            StepTimeoutError, MissingOutputError, EngineError.
        """
        # The container's user is the same everywhere and owns nothing on the host: the volume is open to all,
        # inside a folder that only the invoking user may enter.
        volume = scratch / "out"
        volume.mkdir()
        volume.chmod(0o777)
        log = volume.parent / "log"
        begun = time.monotonic()
        with self._container(image, command, volume) as container:
            status, timed_out = self._follow(container, command, log)
            out_of_memory = bool(self._state(container).get("OOMKilled"))
        seconds = time.monotonic() - begun
        if timed_out:
            raise StepTimeoutError(
                f"{command.name}: stopped after {command.limits.seconds:.0f} s, its time limit",
                advice=f"The log is {self._keep(log, command.name)}",
            )
        if status != 0:
            raise self._failure(command, log, status, out_of_memory=out_of_memory)
        outputs = {name: _regular_file(volume, name, command) for name in command.outputs}
        yield Finished(outputs=outputs, log=log, seconds=seconds)

    @contextlib.contextmanager
    def _container(self, image: str, command: Command, volume: Path) -> Iterator[Container]:
        mounts = [
            Mount(target, str(source), type="bind", read_only=True)
            for target, source in sorted({**command.inputs, **command.surroundings.mounts}.items())
        ]
        mounts.append(Mount("/out", str(volume), type="bind"))
        # Named before it is made: an interruption while the engine makes it must not lose it.
        name = f"bertir-{uuid.uuid4().hex}"
        try:
            yield self._create(name, image, command, mounts, volume)
        finally:
            with _signals_held(), contextlib.suppress(DockerException, requests.RequestException):
                self._client.api.remove_container(name, force=True, v=True)

    def _create(
        self, name: str, image: str, command: Command, mounts: list[Mount], volume: Path
    ) -> Container:
        limits = command.limits
        with _as_engine_error(f"create the container of {command.name}"):
            return self._client.containers.create(
                image,
                list(command.arguments),
                cap_drop=["ALL"],
                detach=True,
                cpuset_cpus=command.surroundings.cpus or None,
                environment={**command.environment, **command.surroundings.environment},
                hostname=command.surroundings.hostname,
                labels={
                    "bertir.step": command.name,
                    "bertir.folder": str(self._folder),
                    "bertir.volume": str(volume.parent),
                },
                mem_limit=limits.memory_bytes,
                memswap_limit=limits.memory_bytes,
                mounts=mounts,
                name=name,
                network_mode="none",
                pids_limit=limits.pids,
                read_only=True,
                security_opt=["no-new-privileges:true"],
                tmpfs={"/tmp": f"size={limits.scratch_bytes},mode=1777,noexec,nosuid,nodev"},  # noqa: S108 - in there
                # Podman's Docker API starts no container without explicit ones: its own are higher than a service
                # without CAP_SYS_RESOURCE may set. (pids_limit is what limits a step; nproc counts a user's processes.)
                ulimits=[
                    Ulimit(name="nofile", soft=4096, hard=4096),
                    Ulimit(name="nproc", soft=8192, hard=8192),
                    Ulimit(name="core", soft=0, hard=0),
                ],
                user=STEP_USER,
                working_dir="/tmp",  # noqa: S108 - in there
            )

    def _follow(self, container: Container, command: Command, log: Path) -> tuple[int, bool]:
        """Start the container, copy its output into the log, give its exit status and whether it ran over time."""
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            with contextlib.suppress(DockerException, requests.RequestException):
                container.kill()

        timer = threading.Timer(command.limits.seconds, stop)
        timer.daemon = True
        with _as_engine_error(f"run {command.name}"), log.open("xb") as file:
            timer.start()
            try:
                container.start()
                for chunk in container.logs(stream=True, follow=True):
                    # Read to the end, or the step would wait for a reader; kept up to a size that a disk bears.
                    file.write(chunk[: max(0, LOG_BYTES - file.tell())])
                status = int(container.wait()["StatusCode"])
            finally:
                timer.cancel()
        return status, expired.is_set()

    def _state(self, container: Container) -> Mapping[str, Any]:
        with _as_engine_error("ask how the step ended"):
            container.reload()
        state: Mapping[str, Any] = container.attrs["State"]
        return state

    def _failure(self, command: Command, log: Path, status: int, *, out_of_memory: bool) -> StepError:
        # What a step prints may come from a stranger's checkpoint: no escape sequence of it reaches the terminal.
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        text = "\n".join(printable(line) for line in lines)
        kept = self._keep(log, command.name)
        said = [
            line.removeprefix(MESSAGE_PREFIX) for line in text.splitlines() if line.startswith(MESSAGE_PREFIX)
        ]
        if said:
            return StepError(f"{command.name}: " + "\n  ".join(said), advice=f"The whole log is {kept}")
        if out_of_memory:
            limit = command.limits.memory_bytes / (1 << 30)
            return StepError(
                f"{command.name}: the kernel ended it for want of memory (limit {limit:.1f} GiB)",
                advice="Give the engine's machine more memory, or stop what else runs there.",
            )
        last = "\n  ".join(text.splitlines()[-LOG_LINES_SHOWN:])
        if status in CRASHES:
            return StepError(
                f"{command.name}: the program crashed ({CRASHES[status]}); its last lines:\n  {last}",
                advice="A file that is damaged, or made to, can do that: look for a copy that is whole."
                f" The whole log is {kept}",
            )
        killed = ", killed from outside" if status == KILLED else ""
        return StepError(
            f"{command.name}: exit status {status}{killed}; its last lines:\n  {last}",
            advice=f"The whole log is {kept}",
        )

    def _keep(self, log: Path, step: str) -> Path:
        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        kept = logs / f"{step}.log"
        kept.write_bytes(log.read_bytes())
        return kept


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let a clean-up end: a second Ctrl-C is heard after it."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _regular_file(volume: Path, name: str, command: Command) -> Path:
    """Give an output's path if it is a regular file of bearable size: never follow a link out of the volume."""
    path = volume / name
    try:
        status = path.lstat()
    except FileNotFoundError:
        found = ", ".join(sorted(item.name for item in volume.iterdir())) or "nothing"
        raise MissingOutputError(
            f"{command.name}: ended well, and yet there is no {name} in its output volume (found: {found})",
            advice="Run it again; if it stays so, please report it with the step's log.",
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise StepError(f"{command.name}: its output {name} is not a regular file; it was not taken")
    if status.st_size > command.limits.output_bytes:
        raise StepError(
            f"{command.name}: its output {name} has {status.st_size} bytes, over the limit of"
            f" {command.limits.output_bytes}; it was not taken"
        )
    return path


@contextlib.contextmanager
def connect(environment: Mapping[str, str], *, folder: Path) -> Iterator[Engine]:
    """Connect to the engine that `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context or the default names.

    Args:
        environment: of the process.
        folder: the store's; logs of failed steps are kept in it, and containers are labelled with it.

    Raises:
        EngineError: none answers there.
    """
    client = _client(environment)
    try:
        try:
            client.ping()
        except (DockerException, requests.RequestException) as error:
            raise _no_engine(environment, error) from error
        client.api.timeout = CALL_SECONDS
        yield Engine(client, folder)
    finally:
        client.close()


def _client(environment: Mapping[str, str]) -> docker.DockerClient:
    try:
        if environment.get("DOCKER_HOST"):
            return docker.DockerClient.from_env(environment=dict(environment), timeout=ANSWER_SECONDS)
        name = environment.get("DOCKER_CONTEXT") or None
        context = ContextAPI.get_context(name)
        if context is None:
            raise ConfigurationError(
                f"there is no docker context named {name!r}", advice="List them by `docker context ls`."
            )
        # The stubs miss that a context without TLS has None.
        tls: TLSConfig | None = context.TLSConfig
        return docker.DockerClient(base_url=context.Host, tls=tls or False, timeout=ANSWER_SECONDS)
    except (DockerException, requests.RequestException, ValueError) as error:  # ValueError: an odd port, say
        raise _no_engine(environment, error) from error


def chosen_engine(environment: Mapping[str, str]) -> str:
    """Say by what the user chose an engine; nothing if it is the default one."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        if environment.get(name):
            return f"{name}={environment[name]}"
    try:
        # The stubs miss that a context which is named and isn't there is None.
        context: Context | None = ContextAPI.get_context()
    except (DockerException, ValueError, OSError):
        return ""
    return "" if context is None or context.name == "default" else f"the docker context {context.name}"


def _no_engine(environment: Mapping[str, str], error: Exception) -> EngineError:
    asked = chosen_engine(environment) or "the default socket"
    return EngineError(
        f"no container engine answers (asked: {asked})\n  {error}",
        advice="Start Docker (root on Debian or Ubuntu: `make engine` installs and starts it), add yourself to the"
        " group `docker`, or point DOCKER_HOST to an engine that you may use.",
    )


@contextlib.contextmanager
def _as_engine_error(doing: str, kind: Callable[..., EngineError] = EngineError) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise kind(f"could not {doing}: {error.explanation or error}", advice=_advice(error)) from error
    except (DockerException, requests.RequestException) as error:
        raise kind(
            f"could not {doing}: the engine no longer answers\n  {error}",
            advice="See whether it still runs (`docker info`), then run the same command again.",
        ) from error


def _advice(error: APIError) -> str:
    text = str(error.explanation)
    if "bind source path does not exist" in text:
        return (
            "bertir mounts folders of this machine: the engine must run on it, and see the store's folder"
            " (BERTIR_STORE)."
        )
    if "no space left" in text:
        return "The engine's disk is full: `docker system df` shows by what."
    return ""
