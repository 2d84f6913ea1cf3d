"""The seven models of Google, with files of the tests' own, from a server, a mirror, and folders of all kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from file_server import Fault, FileServer, serve_files
from google_zip import google_models, models_toml, small_files, write_zip

from bertir.digest import Digest
from bertir.errors import ConfigurationError, DigestMismatchError, FetchError
from bertir.fetch import Fetcher, OfflineError
from bertir.model import GoogleZip, Model, load_models
from bertir.origin import PUBLISHERS, Origin, chosen_origin
from bertir.progress import SILENT
from bertir.store import Store, StoreError
from bertir.task_data import PinnedFile
from bertir.web import Patience

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bertir.store import Artifact

HASTY = Patience(attempts=3, silence=5, first_pause=0.01)
CONTENTS = {name: small_files(name) for name in google_models()}
CASED = CONTENTS["bert-base-cased"]
ZIP = "cased_L-12_H-768_A-12.zip"
FOLDER = "cased_L-12_H-768_A-12"


@pytest.fixture
def zips(tmp_path: Path) -> Path:
    """A folder of all seven zips."""
    folder = tmp_path / "zips"
    folder.mkdir()
    for name, files in CONTENTS.items():
        write_zip(folder / f"{folder_of(name)}.zip", files, folder_of(name))
    return folder


@pytest.fixture
def host(zips: Path) -> Iterator[FileServer]:
    """The publisher's server."""
    with serve_files() as server:
        for name, entry in google_models().items():
            path = "/" + entry["zip"]["url"].partition("//")[2].partition("/")[2]
            server.files[path] = zips / f"{folder_of(name)}.zip"
        yield server


@pytest.fixture
def models(host: FileServer, tmp_path: Path) -> Mapping[str, Model]:
    (tmp_path / "models.toml").write_text(models_toml(host.url, CONTENTS))
    return load_models(tmp_path / "models.toml")


def folder_of(name: str) -> str:
    return str(google_models()[name]["zip"]["folder"])


def fetcher(store: Store, origin: Origin = PUBLISHERS, *, offline: bool = False) -> Fetcher:
    return Fetcher(
        store=store, environment={}, progress=SILENT, offline=offline, origin=origin, patience=HASTY
    )


def fetch(
    store: Store, model: Model, origin: Origin = PUBLISHERS, *, offline: bool = False
) -> dict[str, bytes]:
    assert isinstance(model.archive, GoogleZip)
    return contents(store, fetcher(store, origin, offline=offline).google_zip(model, model.archive))


def contents(store: Store, artifact: Artifact) -> dict[str, bytes]:
    return {name: store.checked(blob, what=name).read_bytes() for name, blob in artifact.files.items()}


def unpack(files: Mapping[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def stored(store: Store) -> set[bytes]:
    return {path.read_bytes() for path in (store.root / "objects").rglob("*") if path.is_file()}


# from the publisher


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_each_model_is_fetched_from_the_url_of_its_zip_and_only_once(
    store: Store, models: Mapping[str, Model], host: FileServer, name: str
) -> None:
    for _ in range(2):
        assert fetch(store, models[name]) == CONTENTS[name]
    [asked] = host.asked
    assert asked.path.endswith(f"/{folder_of(name)}.zip")
    assert stored(store) == set(CONTENTS[name].values())  # the zip isn't kept
    assert list((store.root / "downloads").iterdir()) == []


def test_a_model_with_some_files_missing_fetches_the_zip_again_and_takes_only_those(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    model = models["bert-base-cased"]
    fetch(store, model)
    there = store.path(model.files["vocab.txt"])
    inode = there.stat().st_ino
    store.path(model.files["bert_model.ckpt.index"]).unlink()
    assert fetch(store, model) == CASED
    assert len(host.asked) == 2
    assert there.stat().st_ino == inode


def test_a_zip_that_unpacks_to_another_folder_is_the_same_zip(
    store: Store, models: Mapping[str, Model], host: FileServer, tmp_path: Path
) -> None:
    # OpenVINO's documentation has uncased_L-12_H-768_A-12 for what is multilingual_L-12_H-768_A-12.
    name = "bert-base-multilingual-uncased"
    [path] = [path for path in host.files if "multilingual_L-12" in path]
    host.files[path] = write_zip(tmp_path / "other.zip", CONTENTS[name], "uncased_L-12_H-768_A-12")
    assert fetch(store, models[name]) == CONTENTS[name]


def test_other_bytes_in_the_zip_are_status_102_and_the_next_run_downloads_anew(
    store: Store, models: Mapping[str, Model], host: FileServer, tmp_path: Path
) -> None:
    [path] = [path for path in host.files if path.endswith(f"/{ZIP}")]
    good = host.files[path]
    host.files[path] = write_zip(tmp_path / "evil.zip", CASED | {"vocab.txt": b"[EVIL]\n"}, FOLDER)
    with pytest.raises(DigestMismatchError, match=r"vocab\.txt of cased_L-12.*of bert-base-cased"):
        fetch(store, models["bert-base-cased"])
    assert b"[EVIL]\n" not in stored(store)
    host.files[path] = good
    assert fetch(store, models["bert-base-cased"]) == CASED
    assert host.ranges == [None, None]


def test_what_is_no_zip_is_a_fetch_error_and_the_next_run_downloads_anew(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    [path] = [path for path in host.files if path.endswith(f"/{ZIP}")]
    good = host.files[path]
    host.files[path] = b"<html>please log in</html>"
    with pytest.raises(FetchError, match=rf"{ZIP} of bert-base-cased: the zip was not read"):
        fetch(store, models["bert-base-cased"])
    host.files[path] = good
    assert fetch(store, models["bert-base-cased"]) == CASED


def test_a_broken_connection_is_gone_on_with(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    host.faults = [Fault(after=100_000)]
    assert fetch(store, models["bert-base-cased"]) == CASED
    assert host.ranges == [None, "bytes=100000-"]


def test_bytes_that_changed_halfway_are_noticed_by_their_digest_and_not_kept(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    # The same validators, and yet another file: only the digests can tell.
    [path] = [path for path in host.files if path.endswith(f"/{ZIP}")]
    good = host.files[path]
    assert not isinstance(good, bytes)
    data = good.read_bytes()
    host.faults = [Fault(after=100_000), Fault(status=404)]
    with pytest.raises(FetchError):
        fetch(store, models["bert-base-cased"])
    host.files[path] = data[:100_000] + bytes(1000) + data[101_000:]
    with pytest.raises(FetchError):
        fetch(store, models["bert-base-cased"])
    host.files[path] = good
    assert fetch(store, models["bert-base-cased"]) == CASED
    assert host.ranges[-1] is None


def test_an_absent_zip_is_named_with_what_else_will_do(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    host.files.clear()
    with pytest.raises(FetchError, match=rf"(?s)404.*{host.url}/bert_models/.*{ZIP}") as raised:
        fetch(store, models["bert-base-cased"])
    assert "--mirror" in raised.value.advice


def test_offline_names_what_is_missing_and_asks_nobody(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    store.add_bytes(CASED["vocab.txt"])
    with pytest.raises(OfflineError) as raised:
        fetch(store, models["bert-base-cased"], offline=True)
    assert "bert-base-cased: bert_model.ckpt.index" in str(raised.value)
    assert "vocab.txt" not in str(raised.value)
    assert host.asked == []


PROGRAM = """
import sys
from pathlib import Path
from bertir.fetch import Fetcher
from bertir.model import load_models
from bertir.progress import Progress
from bertir.store import Store
model = load_models(Path(sys.argv[1]))["bert-base-cased"]
fetcher = Fetcher(store=Store(Path(sys.argv[2])), environment={}, progress=Progress(stream=sys.stderr))
assert set(fetcher.google_zip(model, model.archive).files) == set(model.files)
"""


def test_four_processes_at_once_download_a_zip_once(
    store: Store, models: Mapping[str, Model], host: FileServer, tmp_path: Path
) -> None:
    host.pace = 0.2
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "models.toml"), str(store.root)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    told = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, told
    assert host.ranges == [None]
    assert sum("waiting for another process" in text for text in told) == 3
    assert set(models) == set(CONTENTS)


# from a mirror


def test_a_mirror_has_the_zips_by_their_names(
    store: Store, models: Mapping[str, Model], host: FileServer, zips: Path
) -> None:
    with serve_files() as mirror:
        mirror.files[f"/bert/{ZIP}"] = zips / ZIP
        assert fetch(store, models["bert-base-cased"], Origin(url=f"{mirror.url}/bert")) == CASED
    assert host.asked == []


def test_what_a_mirror_lacks_is_not_asked_of_the_publisher(
    store: Store, models: Mapping[str, Model], host: FileServer
) -> None:
    with serve_files() as mirror:
        with pytest.raises(FetchError, match=rf"(?s)404.*{mirror.url}/{ZIP}") as raised:
            fetch(store, models["bert-base-cased"], Origin(url=mirror.url))
        assert "nobody else is asked" in raised.value.advice
    assert host.asked == []


def test_a_mirror_with_another_zip_of_that_name_is_status_102(
    store: Store, models: Mapping[str, Model], tmp_path: Path
) -> None:
    with serve_files() as mirror:
        mirror.files[f"/{ZIP}"] = write_zip(tmp_path / "evil.zip", CONTENTS["bert-base-chinese"], FOLDER)
        with pytest.raises(DigestMismatchError):
            fetch(store, models["bert-base-cased"], Origin(url=mirror.url))
    assert stored(store) == set()


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_a_folder_of_zips_is_a_mirror_and_needs_no_network(
    store: Store, models: Mapping[str, Model], host: FileServer, zips: Path, name: str
) -> None:
    assert fetch(store, models[name], Origin(folder=zips), offline=True) == CONTENTS[name]
    assert host.asked == []


@pytest.mark.parametrize("below", ["", FOLDER, "uncased_L-12_H-768_A-12", "whatever"])
def test_a_folder_of_extracted_files_is_a_mirror_wherever_they_lie_in_it(
    store: Store, models: Mapping[str, Model], tmp_path: Path, below: str
) -> None:
    unpack(CASED, tmp_path / "mirror" / below)
    unpack(CONTENTS["bert-base-chinese"], tmp_path / "mirror" / "a-chinese-one")
    unpack(CONTENTS["bert-base-uncased"], tmp_path / "mirror" / "z-uncased-one")
    assert fetch(store, models["bert-base-cased"], Origin(folder=tmp_path / "mirror")) == CASED
    assert stored(store) == set(CASED.values())


def test_what_a_folder_lacks_is_taken_from_the_zip_beside_it(
    store: Store, models: Mapping[str, Model], tmp_path: Path, zips: Path
) -> None:
    mirror = unpack({"vocab.txt": CASED["vocab.txt"], "bert_config.json": b"{}"}, tmp_path / "mirror")
    (mirror / ZIP).write_bytes((zips / ZIP).read_bytes())
    assert fetch(store, models["bert-base-cased"], Origin(folder=mirror)) == CASED


def test_a_folder_without_them_names_what_was_looked_for(
    store: Store, models: Mapping[str, Model], host: FileServer, tmp_path: Path
) -> None:
    mirror = unpack({"vocab.txt": CASED["vocab.txt"]}, tmp_path / "mirror")
    with pytest.raises(FetchError) as raised:
        fetch(store, models["bert-base-cased"], Origin(folder=mirror))
    assert type(raised.value) is FetchError
    message = str(raised.value)
    for part in (str(mirror), ZIP, f"{FOLDER}/bert_", "bert_model.ckpt.meta", "bert_config.json"):
        assert part in message
    assert "vocab.txt" not in message
    assert host.asked == []


def test_a_folder_with_something_else_under_that_name_is_status_102(
    store: Store, models: Mapping[str, Model], host: FileServer, tmp_path: Path
) -> None:
    mirror = unpack(CASED | {"vocab.txt": b"[EVIL]\n"}, tmp_path / "mirror")
    model = models["bert-base-cased"]
    with pytest.raises(DigestMismatchError, match=r"vocab\.txt: the mirror has something else") as raised:
        fetch(store, model, Origin(folder=mirror))
    assert str(model.files["vocab.txt"]) in str(raised.value)
    assert str(mirror / "vocab.txt") in str(raised.value)
    # What is said is what was done.
    assert "Only files with the right digest were kept" in raised.value.advice
    assert stored(store) == set(CASED.values()) - {CASED["vocab.txt"]}
    assert host.asked == []


def test_what_is_no_regular_file_in_a_folder_is_passed_by(
    store: Store, models: Mapping[str, Model], tmp_path: Path
) -> None:
    mirror = unpack(CASED, tmp_path / "mirror" / "below").parent
    (mirror / "vocab.txt").mkdir()
    os.mkfifo(mirror / "bert_config.json")
    (mirror / "bert_model.ckpt.meta").symlink_to("nowhere")
    assert fetch(store, models["bert-base-cased"], Origin(folder=mirror)) == CASED


def test_a_damaged_object_of_a_model_is_fetched_again_by_the_next_run(
    store: Store, models: Mapping[str, Model]
) -> None:
    model = models["bert-base-cased"]
    artifact = (
        fetcher(store).google_zip(model, model.archive) if isinstance(model.archive, GoogleZip) else None
    )
    assert artifact is not None
    path = store.path(model.files["vocab.txt"])
    path.chmod(0o644)
    path.write_bytes(b"x" * artifact["vocab.txt"].size)
    with pytest.raises(StoreError, match="held other bytes"):
        contents(store, artifact)
    assert fetch(store, model) == CASED


# files that are published one by one


def pinned(url: str, data: bytes = b"rows\n") -> PinnedFile:
    return PinnedFile(name="rows.tsv", url=url, size=len(data), digest=Digest.of_bytes(data))


def test_a_single_file_comes_from_its_url_or_the_mirror(
    store: Store, tmp_path: Path, host: FileServer
) -> None:
    host.files["/data/rows.tsv"] = b"rows\n"
    pin = pinned(f"{host.url}/data/rows.tsv")
    for _ in range(2):
        assert fetcher(store).files([pin])["rows.tsv"].read_bytes() == b"rows\n"
    assert len(host.asked) == 1
    other = Store(tmp_path / "other")
    with pytest.raises(FetchError, match=f"{host.url}/rows.tsv"):
        fetcher(other, Origin(url=host.url)).files([pin])
    unpack({"rows.tsv": b"rows\n"}, tmp_path / "mirror" / "glue")
    assert fetcher(other, Origin(folder=tmp_path / "mirror"), offline=True).files([pin])


def test_a_single_file_that_is_another_one_is_status_102(
    store: Store, tmp_path: Path, host: FileServer
) -> None:
    host.files["/rows.tsv"] = b"evil\n"
    with pytest.raises(DigestMismatchError, match=r"rows\.tsv: the digest is wrong"):
        fetcher(store).files([pinned(f"{host.url}/rows.tsv")])
    host.files["/rows.tsv"] = b"more than the pinned bytes\n"
    with pytest.raises(DigestMismatchError, match="more than the 5 bytes"):
        fetcher(store).files([pinned(f"{host.url}/rows.tsv")])
    unpack({"rows.tsv": b"evil\n"}, tmp_path / "mirror")
    with pytest.raises(DigestMismatchError, match="the mirror has something else"):
        fetcher(store, Origin(folder=tmp_path / "mirror")).files([pinned("http://127.0.0.1:9/rows.tsv")])
    with pytest.raises(OfflineError, match=r"rows\.tsv"):
        fetcher(store, offline=True).files([pinned("http://127.0.0.1:9/rows.tsv")])
    assert stored(store) == set()


# which origin


def test_the_option_comes_before_the_variable_and_both_before_the_publishers(tmp_path: Path) -> None:
    environment = {"BERTIR_MIRROR": "https://mirror.test/bert/"}
    assert chosen_origin("", {}) == PUBLISHERS
    assert chosen_origin("", environment) == Origin(url="https://mirror.test/bert")
    assert chosen_origin(str(tmp_path), environment) == Origin(folder=tmp_path)
    assert chosen_origin(f"file://{tmp_path}", environment) == Origin(folder=tmp_path)


@pytest.mark.parametrize(
    "text",
    ["ftp://mirror.test", "https://", "http://[", "http://a b/", "/nonexistent", "s3://bucket", "a\0b", "\n"],
)
def test_what_is_no_mirror_is_status_2_and_names_where_it_was_said(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--mirror: "):
        chosen_origin(text, {})
    with pytest.raises(ConfigurationError, match=r"^BERTIR_MIRROR: "):
        chosen_origin("", {"BERTIR_MIRROR": text})
