"""The container engine: find it, load an image, make and watch one container. All use of docker-py is here.

What a step's container may and may not is decided here (`create`); how one is run to its end is in container.py.
"""

from __future__ import annotations

import contextlib
import struct
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import requests
import urllib3
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit

from bertir.container import WAIT, StepRun, empty, run_step
from bertir.engines import EngineFacts, ImageGoneError
from bertir.errors import ConfigurationError, EngineError, ImageError
from bertir.interruption import held
from bertir.store_folder import identities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from docker.context import Context
    from docker.models.containers import Container
    from docker.tls import TLSConfig
    from docker.types.daemon import CancellableStream

    from bertir.container import Command, Finished
    from bertir.digest import Digest

STEP_USER = "65532:65532"
# Before the name of a store, of which the label's value is a place in it.
STORE_LABEL = "bertir.store."
# For its first answer, and for the removal of a container: whoever pressed Ctrl-C waits for that.
ANSWER_SECONDS = 20
# For the removal of another container, when it left the one before without an answer.
AGAIN_SECONDS = 1
# For any other answer that takes no work, of an engine which has a lot to do.
BUSY_SECONDS = 120
# Loading the image; and for a silent step's first line: its own time limit is what ends it.
LONG_SECONDS = 7200
# What the engine keeps of a step's output itself, twice: bertir reads along, and keeps less.
ENGINE_LOG = {"max-size": "64m", "max-file": "2"}
# What a container gets of the processor when others want it too: one that is started ahead beside others little.
# What the engine gives by itself is 1024.
IDLE_SHARES, YIELDING_SHARES, USUAL_SHARES = 64, 256, 1024
# The fields of /info that say what an engine can limit, in the words for it.
_CAN_LIMIT = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes"}

# What reading a stream ends with when the engine dies, or the stream is closed meanwhile.
_BROKEN_OFF = (
    DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
    AttributeError,
    struct.error,
    EngineError,
)


class Engine:
    """A connection to a Docker API. Made by `connect`, closed by its `with` block."""

    def __init__(
        self, client: docker.DockerClient, folder: Path, another: Callable[[], docker.DockerClient]
    ) -> None:
        self._client = client
        self._another = another
        self.folder = folder
        self._hangs = False

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
            not_limited=", ".join(self.not_limited),
        )

    def image_folder(self) -> Path | None:
        """Give the folder in which the engine keeps images, if that is on this machine.

        Of Docker with its usual storage alone, whose need of room was measured.
        """
        if not str(self._client.api.base_url).startswith("http+docker"):  # not by a Unix socket
            return None
        folder = Path(self._info.get("DockerRootDir") or "/nonexistent")
        return folder if self._info.get("Driver") == "overlay2" and folder.is_dir() else None

    @cached_property
    def _info(self) -> Mapping[str, Any]:
        with _as_engine_error("ask the engine what it can do"):
            told: Mapping[str, Any] = self._client.info()
        return told

    @property
    def memory(self) -> int:
        """The bytes of memory of the engine's machine; 0 if it doesn't say."""
        return int(self._info.get("MemTotal") or 0)

    @property
    def limits_memory(self) -> bool:
        return True  # as far as it can (`not_limited`)

    @property
    def contains(self) -> bool:
        return True

    @property
    def not_limited(self) -> tuple[str, ...]:
        """What the engine can't limit: it would take such a limit, and discard it without an error.

        So it is with cgroup v2 without its controllers, with a kernel that lacks some, and without root.
        """
        return tuple(words for name, words in _CAN_LIMIT.items() if self._info.get(name) is False)

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
        with self._waiting(LONG_SECONDS), _as_engine_error("load the image", ImageError):
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

        Those of stores inside this one's too: a rebuild has a store of its own there, which nobody opens again. The store
        is known by its name: another machine's, or another container's, may have the same path.

        Args:
            is_abandoned: tells of an output volume's folder whether no living process holds it.
        """
        names = {folder: name for name, folder in identities(self.folder).items()}
        if self.folder not in names:  # no store of bertir's
            return 0
        label = f"{STORE_LABEL}{names[self.folder]}"
        ours: dict[str, str | list[str] | bool] = {"label": label}
        with _as_engine_error("look for containers left behind"):
            return sum(
                self._removed(container)
                for container in self._client.containers.list(all=True, filters=ours, ignore_removed=True)
                if is_abandoned(self.folder / container.labels[label])
            )

    def _removed(self, container: Container) -> bool:
        try:
            container.remove(force=True, v=True)
        except APIError as error:  # gone, or another process of bertir's is removing it
            if error.status_code not in (requests.codes.not_found, requests.codes.conflict):
                raise
            return False
        return True

    def run(self, image: str, command: Command, scratch: Path) -> AbstractContextManager[Finished]:
        """Run a step to its end and give its outputs, which last as long as the `with` block.

        Args:
            image: an image ID.
            command: the step.
            scratch: an empty folder of the caller's (0700), on the store's disk: the output volume is made in it.

        Raises:
            StepError: the step refused its input, or failed, or took more than it may; its log is kept and named.
            StepTimeoutError, MissingOutputError.
            EngineError: the engine died, or doesn't answer. ImageGoneError: it doesn't have the image.
        """
        return run_step(self, image, command, scratch)

    def begin(self, image: str, command: Command, scratch: Path) -> StepRun:
        """Like `run`, without waiting for the end; use what it gives as a context manager."""
        return StepRun(self, image, command, scratch)

    def empty(self, image: str, volume: Path) -> None:
        """Empty an output volume, whoever owns what is in it: by a container, if this user may not."""
        empty(self, image, volume)

    # one container: made under a name, by which it is removed, then known by its ID

    def create(
        self, name: str, image: str, command: Command, volume: Path, folders: Mapping[str, Path]
    ) -> str:
        """Make the container of a step, hardened and limited; give its ID.

        `folders` are mounted read-only, by their paths inside the container, and hold the inputs below those.
        """
        limits = command.limits
        files = {
            path: source
            for path, source in command.inputs.items()
            if not any(path.startswith(f"{folder}/") for folder in folders)
        }
        mounts = [
            Mount(target, str(source), type="bind", read_only=True)
            for target, source in sorted({**files, **folders, **command.surroundings.mounts}.items())
        ]
        mounts.append(Mount("/out", str(volume), type="bind"))
        try:
            # Held: one that is made must be known to be, or nobody removes it.
            with held(), _as_engine_error(f"create the container of {command.name}"):
                made = self._client.containers.create(
                    image,
                    list(command.arguments),
                    cap_drop=["ALL"],
                    detach=True,
                    cpuset_cpus=command.surroundings.cpus or None,
                    cpu_shares=IDLE_SHARES if command.idles else _shares(command),
                    environment={
                        **command.environment,
                        **(WAIT if command.waits else {}),
                        **command.surroundings.environment,
                    },
                    hostname=command.surroundings.hostname,
                    labels={
                        "bertir.step": command.name,
                        "bertir.folder": str(self.folder),
                        **_store_labels(self.folder, volume.parent),
                    },
                    log_config=LogConfig(type=LogConfig.types.JSON, config=ENGINE_LOG),
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
                    # without CAP_SYS_RESOURCE may set. (pids_limit is what limits a step; nproc counts a user's
                    # processes.)
                    ulimits=[
                        Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
                        Ulimit(name="nproc", soft=8192, hard=8192),
                        Ulimit(name="core", soft=0, hard=0),
                        Ulimit(name="fsize", soft=limits.output_bytes, hard=limits.output_bytes),
                    ],
                    user=STEP_USER,
                    working_dir="/tmp",  # noqa: S108 - in there
                )
        except EngineError as error:
            if isinstance(error.__cause__, ImageNotFound):
                raise ImageGoneError(
                    str(error), advice="Run the same command again: it is loaded anew."
                ) from error
            raise
        return str(made.id)

    def start(self, container: str, step: str) -> None:
        with _as_engine_error(f"run {step}"):
            self._client.api.start(container)

    def let_go_on(self, container: str, command: Command) -> None:
        """Give a container that was waiting for its inputs its own part of the processor."""
        with _as_engine_error("let the step go on"):
            self._client.api.update_container(container, cpu_shares=_shares(command))

    def log_of(self, container: str) -> LogStream:
        """Give what a container prints, as it does."""
        return LogStream(self._another, container)

    def is_running(self, container: str) -> bool:
        with _as_engine_error("ask how the step is doing"):
            return bool(self._state(container).get("Running"))

    def ending_of(self, container: str) -> tuple[int, bool]:
        """Give the exit status of a container that has ended, and whether the kernel ended a process for its memory."""
        with _as_engine_error("ask how the step ended"):
            status = int(self._client.api.wait(container)["StatusCode"])
            return status, bool(self._state(container).get("OOMKilled"))

    def _state(self, container: str) -> Mapping[str, Any]:
        state: Mapping[str, Any] = self._client.api.inspect_container(container)["State"]
        return state

    def kill(self, container: str) -> None:
        """End a container at once, unless it has ended."""
        with _as_engine_error("end the step"), contextlib.suppress(NotFound):
            try:
                self._client.api.kill(container)
            except APIError as error:
                if error.status_code != requests.codes.conflict:
                    raise

    def remove(self, name: str) -> None:
        """Remove a container, running or not, if it is there and the engine answers; else the next run removes it."""
        with (
            held(),
            self._waiting(AGAIN_SECONDS if self._hangs else ANSWER_SECONDS),
            contextlib.suppress(DockerException, requests.RequestException),
        ):
            try:
                self._client.api.remove_container(name, force=True, v=True)
            except requests.Timeout:
                self._hangs = True
                raise

    @contextlib.contextmanager
    def _waiting(self, seconds: int) -> Iterator[None]:
        """Wait so long for each answer, within the block."""
        before = self._client.api.timeout
        self._client.api.timeout = seconds
        try:
            yield
        finally:
            self._client.api.timeout = before


def _shares(command: Command) -> int:
    return YIELDING_SHARES if command.yields else USUAL_SHARES


def _store_labels(store: Path, folder: Path) -> dict[str, str]:
    """Say by which a container is known again: where its folder lies in the store, and in those around that."""
    return {
        f"{STORE_LABEL}{identity}": str(folder.relative_to(base))
        for identity, base in identities(store).items()
        if folder.is_relative_to(base)
    }


class LogStream:
    """What a container prints, read by one thread, which another may end.

    It has a connection of its own, with a patience of its own: podman begins to answer with a step's first line.
    """

    def __init__(self, connected: Callable[[], docker.DockerClient], container: str) -> None:
        self._connected = connected
        self._container = container
        self._stream: CancellableStream[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        # Whether it broke off is asked of the engine, and not guessed from how the connection ended.
        with contextlib.suppress(*_BROKEN_OFF), contextlib.closing(self._connected()) as client:
            client.api.timeout = LONG_SECONDS
            self._stream = client.api.logs(self._container, stream=True, follow=True)
            yield from self._stream

    def close(self) -> None:
        with contextlib.suppress(*_BROKEN_OFF):
            if self._stream is not None:
                self._stream.close()


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
        client.api.timeout = BUSY_SECONDS
        yield Engine(client, folder, lambda: _client(environment))
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
