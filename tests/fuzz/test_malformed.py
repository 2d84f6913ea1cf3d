"""Every malformed variation of every file that bertir reads on the host ends in one message, or is a file like it."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from mutations import MARK, changed_bytes, changed_lines, changed_values, other_things, to_json, to_toml
from some_build import publish_some

from bertir.digest import Digest
from bertir.errors import BertirError, ConfigurationError, LockError, VerificationError
from bertir.host_lock import check_host_locks, check_optimum_lock
from bertir.intent import load_intent
from bertir.job_intent import load_job_intent
from bertir.job_lock import load_job_lock
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.lock import load_image_lock
from bertir.model import load_models
from bertir.part import Part
from bertir.signature import generate_key, load_private_key, load_public_key, sign
from bertir.store import Artifact, Record, Store, StoreError
from bertir.task_data import load_mrpc, read_dev_tsv
from bertir.upstream import load_source_lock, load_upstream
from bertir.verify import verify_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Count = Callable[[int], None]

LONGEST_LINE = 6_000  # a path may have 4,096 letters

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, kw_only=True)
class Read:
    """A file, what reads it, and the kinds of error that may come of it."""

    file: str
    read: Callable[[Path], object]
    kinds: tuple[type[BertirError], ...]


def _upstream(root: Path) -> object:
    return load_source_lock(root / "patches", load_upstream(root / "patches"))


def _image(root: Path) -> object:
    return load_image_lock(root / "docker")


def _job(root: Path) -> object:
    step = load_intent(root / "docker")
    return load_job_lock(root, step, load_image_lock(root / "docker", step), load_job_intent(root / "docker"))


BY_HAND, LOCKS = (ConfigurationError, LockError), (LockError,)
FILES = (
    Read(
        file="docker/image.toml", read=lambda root: load_intent(root / "docker"), kinds=(ConfigurationError,)
    ),
    Read(file="docker/debian.lock", read=_image, kinds=LOCKS),
    Read(file="docker/requirements.lock", read=_image, kinds=LOCKS),
    Read(file="docker/image.lock", read=_image, kinds=LOCKS),
    Read(
        file="docker/job.toml",
        read=lambda root: load_job_intent(root / "docker"),
        kinds=(ConfigurationError,),
    ),
    Read(file="docker/job-debian.lock", read=_job, kinds=LOCKS),
    Read(file="docker/job-requirements.lock", read=_job, kinds=LOCKS),
    Read(file="docker/job.lock", read=_job, kinds=LOCKS),
    Read(
        file="models.toml", read=lambda root: load_models(root / "models.toml"), kinds=(ConfigurationError,)
    ),
    Read(
        file="task_data.toml",
        read=lambda root: load_mrpc(root / "task_data.toml"),
        kinds=(ConfigurationError,),
    ),
    Read(file="patches/upstream.toml", read=_upstream, kinds=BY_HAND),
    Read(file="patches/series", read=_upstream, kinds=BY_HAND),
    Read(file="patches/mirror/series", read=_upstream, kinds=BY_HAND),
    Read(file="patches/source.lock", read=_upstream, kinds=LOCKS),
    Read(file="patches/0004-modeling-own-layer_norm.patch", read=_upstream, kinds=BY_HAND),
    Read(file="pyproject.toml", read=check_host_locks, kinds=BY_HAND),
    Read(file="requirements/build.lock", read=check_host_locks, kinds=LOCKS),
    Read(file="requirements/dev.lock", read=check_host_locks, kinds=LOCKS),
    Read(file="requirements/serving.lock", read=check_host_locks, kinds=LOCKS),
    Read(file="requirements/optimum.lock", read=check_optimum_lock, kinds=LOCKS),
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    for name in ("docker", "patches", "requirements"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy2(ROOT / "task_data.toml", copy / "task_data.toml")
    # Of each kind of entry one, or the variations of all the others would be the same again.
    models = tomllib.loads((ROOT / "models.toml").read_text(encoding="utf-8"))
    kinds = {entry["kind"]: name for name, entry in models.items()}
    (copy / "models.toml").write_bytes(to_toml({name: models[name] for name in kinds.values()}))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = {
        "project": {"dependencies": project["project"]["dependencies"]},
        "dependency-groups": project["dependency-groups"],
    }
    (copy / "pyproject.toml").write_bytes(to_toml(project))
    return copy


def variations(path: Path) -> Iterator[bytes]:
    whole = path.read_bytes()
    if path.suffix == ".toml":
        value = tomllib.loads(whole.decode())
        # So that a variation differs in one thing, and not by the writer.
        assert tomllib.loads(to_toml(value).decode()) == value
        yield from map(to_toml, changed_values(value))
    elif whole.startswith(b"{"):
        yield from map(to_json, changed_values(json.loads(whole)))
    else:
        yield from changed_lines(whole)
    yield from changed_bytes(whole)


def one_message(read: Callable[[], object], kinds: tuple[type[BertirError], ...], name: str) -> None:
    """See that it is read, or refused by one message that names the file and moves no cursor."""
    try:
        read()
    except kinds as error:
        text = f"{error}\n{error.advice}"
        assert name in text
        assert all(line.isprintable() and len(line) < LONGEST_LINE for line in text.split("\n")), text
        assert f"\n{MARK}" not in text


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.file)
def test_every_variation_of_a_file_of_the_checkout_is_read_or_one_message(
    checkout: Path, case: Read, count: Count
) -> None:
    path = checkout / case.file
    case.read(checkout)  # as it is, it is right
    whole = path.read_bytes()
    number = 0
    for data in variations(path):
        path.write_bytes(data)
        one_message(lambda: case.read(checkout), case.kinds, path.name)
        number += 1
    path.write_bytes(whole)
    for what in other_things(path):
        with pytest.raises(BertirError) as raised:
            case.read(checkout)
        assert path.name in str(raised.value), what
        number += 1
    case.read(checkout)
    assert number > 250
    count(number)


# a published folder


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Path]:
    """A signed folder, and the key."""
    folder = publish_some(ROOT / "models.toml", tmp_path / "dist", Store(tmp_path / "store"))
    public, _ = generate_key(tmp_path / "key")
    envelope = sign((folder / "provenance.json").read_bytes(), load_private_key(tmp_path / "key"))
    (folder / "provenance.intoto.jsonl").write_bytes(envelope)
    return folder, public


@pytest.mark.parametrize(
    "name", ["provenance.json", "report.json", "SHA256SUMS", "provenance.intoto.jsonl", "bert_config.json"]
)
def test_every_variation_of_a_published_file_is_one_message(
    published: tuple[Path, Path], name: str, count: Count
) -> None:
    folder, key = published
    verify_folder(folder, key)
    path = folder / name
    whole = path.read_bytes()
    number = 0
    for data in variations(path):
        if data == whole:
            continue
        path.write_bytes(data)
        one_message(lambda: verify_folder(folder, key), (VerificationError,), name)
        number += 1
    path.write_bytes(whole)
    for what in other_things(path):
        if what == "32 GB of nothing" and name == "bert_config.json":
            continue  # of what SHA256SUMS lists, all is hashed, however long: a model.bin may have gigabytes
        with pytest.raises(BertirError) as raised:
            verify_folder(folder, key)
        assert path.name in str(raised.value), what
        number += 1
    verify_folder(folder, key)
    assert number > 250
    count(number)


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_every_variation_of_a_key_is_a_key_or_one_message(
    published: tuple[Path, Path], name: str, count: Count
) -> None:
    path = published[1].with_name(name)
    whole = path.read_bytes()
    number = 0

    def load() -> object:
        return load_private_key(path) if name == "key" else load_public_key(path)

    for data in [*changed_bytes(whole, flips=400), *changed_lines(whole)]:
        path.write_bytes(data)
        one_message(load, (ConfigurationError,), name)
        number += 1
    path.write_bytes(whole)
    for what in other_things(path):
        with pytest.raises(ConfigurationError) as raised:
            load()
        assert name in str(raised.value), what
        number += 1
    count(number)


# a user's own files


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n")
    (folder / "bert_config.json").write_bytes(
        to_json({"vocab_size": 5, "max_position_embeddings": 8, "num_hidden_layers": 1, "hidden_act": "gelu"})
    )
    for step in (1, 2):
        (folder / f"model.ckpt-{step}.index").touch()
        (folder / f"model.ckpt-{step}.data-00000-of-00001").touch()
    (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "model.ckpt-2"\n')
    return folder


@pytest.mark.parametrize("name", ["vocab.txt", "bert_config.json", "checkpoint", "dev.tsv"])
def test_every_variation_of_a_users_file_is_read_or_one_message(
    tmp_path: Path, name: str, count: Count
) -> None:
    folder = checkpoint(tmp_path / "mine")
    path = folder / name
    (folder / "dev.tsv").write_bytes(b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tone\ttwo\n")
    number = 0

    def load() -> object:
        return read_dev_tsv(folder) if name == "dev.tsv" else find_checkpoint(Options(path=folder))

    load()
    for data in variations(path):
        path.write_bytes(data)
        one_message(load, (ConfigurationError,), "mine")
        number += 1
    for _ in other_things(path):
        one_message(load, (ConfigurationError,), "mine")
        number += 1
    count(number)


# what bertir noted for itself


def test_every_variation_of_what_is_noted_of_a_download_is_taken_or_forgotten(
    tmp_path: Path, count: Count
) -> None:
    store, key = Store(tmp_path / "store"), Digest.of_bytes(b"key")
    noted: dict[str, Any] = {"url": "https://x/y", "length": 5, "etag": '"a"', "last_modified": ""}
    path = store.root / "downloads" / f"{key.hex}.json"
    number = 0
    for data in [*map(to_json, changed_values(noted)), *changed_bytes(to_json(noted))]:
        path.write_bytes(data)
        state = Part(store, key, "https://x/y", what="it").state
        assert state.url == "https://x/y"
        assert state.length is None or isinstance(state.length, int)
        assert state.validator.isprintable()
        number += 1
    count(number)


def test_every_variation_of_a_record_is_the_artifact_or_none(tmp_path: Path, count: Count) -> None:
    """As a damaged disk makes them; and as somebody makes them who knows how the checksum is taken."""
    store, key = Store(tmp_path / "store"), Digest.of_bytes(b"key")
    artifact = Artifact(files={"model.xml": store.add_bytes(b"output")})
    store.save_record("step", key, Record(artifact=artifact, facts={"seconds": 1.5}))
    path = store.root / "records" / "step" / f"{key.hex}.json"
    saved = path.read_bytes()
    noted = json.loads(saved)
    del noted["sha256"]
    number = 0
    for data in changed_bytes(saved):
        path.write_bytes(data)
        record = store.load_record("step", key)
        assert record is None or (record.artifact == artifact and record.facts == {"seconds": 1.5})
        number += 1
    for value in changed_values(noted):
        try:
            sealed = {**value, "sha256": Digest.of_json(["step", key.hex, value]).hex}
        except (TypeError, ValueError):
            sealed = value  # no JSON object, or one that has no digest
        path.write_bytes(to_json(sealed))
        try:
            record = store.load_record("step", key)
        except StoreError:
            record = None
        assert record is None or store.has_all(record.artifact)
        number += 1
    count(number)
