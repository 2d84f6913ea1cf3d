"""Published folders to a registry and back: the same bits have the same digest, and what comes is verified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from oci_registry import Fault, MemoryRegistry, client_of, digest_of, memory_registry
from some_build import built_at_another_time, publish_some

from bertir import oci
from bertir.digest import Digest
from bertir.errors import BertirError, ConfigurationError, DigestMismatchError, FetchError, VerificationError
from bertir.publish import PAGE, PROVENANCE, REPORT, SIGNATURES, SUMS
from bertir.referrers import fallback_tag
from bertir.registry_folder import KIND, PROVENANCE_KIND, Origin, Pulled, pull_folder, push_folder
from bertir.signature import generate_key, load_private_key, sign
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.registry import Registry


NAME = "models/bert"
FILES = {"model.xml", "model.bin", "vocab.txt", "bert_config.json", SUMS}


@pytest.fixture(params=[False, True], ids=["by tag", "by API"])
def memory(request: pytest.FixtureRequest) -> Iterator[MemoryRegistry]:
    with memory_registry() as known:
        known.referrers_api = request.param
        yield known


@pytest.fixture
def memory_by_tag() -> Iterator[MemoryRegistry]:
    with memory_registry() as known:
        yield known


@pytest.fixture
def published(root: Path, tmp_path: Path) -> Path:
    return publish_some(root / "models.toml", tmp_path / "dist", Store(tmp_path / "others"))


@pytest.fixture
def built_later(root: Path, tmp_path: Path) -> Path:
    """The same IR, built at another time."""

    return publish_some(
        root / "models.toml", tmp_path / "later", Store(tmp_path / "others"), built_at_another_time
    )


def registry(memory: MemoryRegistry) -> Registry:
    return client_of(memory, NAME)


def pulled(
    memory: MemoryRegistry, store: Store, folder: Path, wanted: str = "1", key: Path | None = None
) -> Pulled:
    digest = Digest.from_str(wanted) if wanted.startswith("sha256:") else None
    origin = Origin(store=store, registry=registry(memory), wanted=wanted, digest=digest)
    return pull_folder(origin, folder, key=key)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change_file(memory: MemoryRegistry, name: str, data: bytes) -> None:
    """Let the artifact name other bytes as one of its files."""
    manifest = memory.manifest(NAME, "1")
    for layer in manifest["layers"]:
        if layer["annotations"][oci.TITLE] == name:
            layer |= {"digest": digest_of(data), "size": len(data)}
    memory.blobs[digest_of(data)] = data
    replaced(memory, manifest)


def replaced(memory: MemoryRegistry, manifest: dict[str, Any]) -> None:
    """Put another manifest in the artifact's place, with what was attached to it attached to this one."""
    old, data = digest_of(memory.manifests[f"{NAME}:1"][1]), json.dumps(manifest).encode()
    new = memory.hold(NAME, "1", oci.MANIFEST, data)
    listed = json.loads(memory.manifests[f"{NAME}:{fallback_tag(Digest.from_str(old))}"][1])
    entries = []
    for entry in listed["manifests"]:
        about = memory.manifest(NAME, entry["digest"])
        about["subject"] |= {"digest": new, "size": len(data)}
        text = json.dumps(about).encode()
        memory.hold(NAME, digest_of(text), oci.MANIFEST, text)
        entries.append({**entry, "digest": digest_of(text), "size": len(text)})
    tag = fallback_tag(Digest.from_str(new))
    memory.hold(NAME, tag, oci.INDEX, oci.index_of(entries))


# there and back


def test_what_is_pulled_is_what_was_pushed(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    pushed = push_folder(published, registry(memory), "1")
    for wanted in ("1", str(pushed.manifest)):
        folder = tmp_path / "there" / wanted[:6]
        got = pulled(memory, store, folder, wanted)
        assert contents(folder) == contents(published)
        assert (got.manifest, got.provenance) == (pushed.manifest, pushed.provenance)
        assert not got.replaced


def test_the_artifact_has_the_summed_files_and_no_time(
    memory_by_tag: MemoryRegistry, published: Path
) -> None:
    pushed = push_folder(published, registry(memory_by_tag), "1")
    manifest = memory_by_tag.manifest(NAME, "1")
    assert manifest["artifactType"] == KIND
    assert {layer["annotations"][oci.TITLE] for layer in manifest["layers"]} == FILES
    assert manifest.keys() == {"schemaVersion", "mediaType", "artifactType", "config", "layers"}
    about = memory_by_tag.manifest(NAME, str(pushed.provenance))
    assert about["artifactType"] == PROVENANCE_KIND
    assert about["subject"]["digest"] == str(pushed.manifest)
    assert [layer["annotations"][oci.TITLE] for layer in about["layers"]] == [PROVENANCE, REPORT, PAGE]
    assert about["layers"][0]["digest"] == digest_of((published / PROVENANCE).read_bytes())


def test_two_builds_of_the_same_ir_are_one_artifact_with_two_provenances(
    memory: MemoryRegistry, store: Store, published: Path, built_later: Path, tmp_path: Path
) -> None:
    first = push_folder(published, registry(memory), "1")
    second = push_folder(built_later, registry(memory), "2")
    assert first.manifest == second.manifest
    assert first.provenance != second.provenance
    assert second.sent == 3  # statement, report, page
    got = pulled(memory, store, tmp_path / "there", "2")
    assert got.provenance == min(first.provenance, second.provenance)


def test_pushed_again_nothing_is_sent(memory: MemoryRegistry, published: Path) -> None:
    first = push_folder(published, registry(memory), "1")
    assert first.sent == 9
    assert push_folder(published, registry(memory), "1").sent == 0


def test_a_tag_names_it_only_when_its_provenance_is_attached(memory: MemoryRegistry, published: Path) -> None:
    puts: list[str] = []
    memory.before_put = puts.append
    pushed = push_folder(published, registry(memory), "1")
    assert puts[:2] == [str(pushed.manifest), str(pushed.provenance)]
    assert puts[-1] == "1"


def test_without_a_tag_it_is_there_by_its_digest(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    pushed = push_folder(published, registry(memory), "")
    assert pulled(memory, store, tmp_path / "there", str(pushed.manifest)).manifest == pushed.manifest
    tags = {place for place in memory.manifests if "@" not in place}
    assert tags <= {f"{NAME}:{fallback_tag(pushed.manifest)}"}


def test_a_signature_goes_along_and_is_preferred(
    memory: MemoryRegistry, store: Store, published: Path, built_later: Path, tmp_path: Path
) -> None:
    generate_key(tmp_path / "a.key")
    signer = load_private_key(tmp_path / "a.key", "")
    push_folder(built_later, registry(memory), "1")
    (published / SIGNATURES).write_bytes(sign((published / PROVENANCE).read_bytes(), signer, None))
    signed = push_folder(published, registry(memory), "1")
    got = pulled(memory, store, tmp_path / "there", key=tmp_path / "a.key.pub")
    assert got.verified.signed_by == signer.public_key.keyid
    assert contents(tmp_path / "there") == contents(published)
    assert pulled(memory, store, tmp_path / "there too").provenance == signed.provenance


def test_by_another_key_or_none_nothing_is_put_in_place(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        generate_key(tmp_path / f"{name}.key")
    push_folder(published, registry(memory), "1")
    with pytest.raises(VerificationError, match="nobody signed this build"):
        pulled(memory, store, tmp_path / "there", key=tmp_path / "a.key.pub")
    signer = load_private_key(tmp_path / "a.key", "")
    (published / SIGNATURES).write_bytes(sign((published / PROVENANCE).read_bytes(), signer, None))
    push_folder(published, registry(memory), "1")
    with pytest.raises(VerificationError, match=SIGNATURES):
        pulled(memory, store, tmp_path / "there", key=tmp_path / "b.key.pub")
    assert not (tmp_path / "there").exists()


# what isn't pushed


def test_a_folder_that_is_not_as_it_was_published_is_not_pushed(
    memory: MemoryRegistry, published: Path
) -> None:
    (published / "model.bin").write_bytes(b"other weights")
    with pytest.raises(VerificationError, match=r"model\.bin: expected"):
        push_folder(published, registry(memory), "1")
    assert memory.asked == []


# where it goes


def test_another_build_of_bertirs_is_replaced_and_said_so(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path, root: Path
) -> None:
    push_folder(published, registry(memory), "1")
    there = publish_some(root / "models.toml", tmp_path / "old", store)
    (there / "model.bin").write_bytes(b"damaged")
    assert pulled(memory, store, there).replaced
    assert contents(there) == contents(published)


def test_what_bertir_did_not_publish_is_left_alone(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    push_folder(published, registry(memory), "1")
    there = tmp_path / "mine"
    there.mkdir()
    (there / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="holds something that bertir did not publish"):
        pulled(memory, store, there)
    assert contents(there) == {"thesis.txt": b"years of work"}
    assert [path.name for path in tmp_path.iterdir() if "mine" in path.name] == ["mine"]


# hostile registries


def refused(memory: MemoryRegistry, store: Store, tmp_path: Path, kind: type[BertirError], says: str) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(kind, match=says):
        pulled(memory, store, tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "title",
    ["../model.bin", "/etc/passwd", "a/model.bin", "", ".", "..", "model.bin\0", "MODEL.BIN", PROVENANCE],
)
def test_a_file_of_another_name_is_never_written(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path, title: str
) -> None:
    push_folder(published, registry(memory_by_tag), "1")
    manifest = memory_by_tag.manifest(NAME, "1")
    for layer in manifest["layers"]:
        if layer["annotations"][oci.TITLE] == "model.bin":
            layer["annotations"][oci.TITLE] = title
    replaced(memory_by_tag, manifest)
    refused(memory_by_tag, store, tmp_path, DigestMismatchError, "its files aren't those that bertir pushes")


@pytest.mark.parametrize("change", ["twice", "missing", "more"])
def test_a_file_twice_or_missing_or_more_is_refused(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path, change: str
) -> None:
    push_folder(published, registry(memory_by_tag), "1")
    manifest = memory_by_tag.manifest(NAME, "1")
    if change == "missing":
        del manifest["layers"][2]
    else:
        title = "model.bin" if change == "twice" else "evil.so"
        manifest["layers"].append({**manifest["layers"][0], "annotations": {oci.TITLE: title}})
    replaced(memory_by_tag, manifest)
    refused(memory_by_tag, store, tmp_path, DigestMismatchError, "its files aren't those that bertir pushes")


def test_other_weights_under_the_right_name_are_refused_by_the_sums(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    push_folder(published, registry(memory_by_tag), "1")
    change_file(memory_by_tag, "model.bin", b"other weights")
    refused(
        memory_by_tag,
        store,
        tmp_path,
        VerificationError,
        r"models/bert:1 isn't what .*\n  model\.bin: expected",
    )


def test_a_file_larger_than_any_is_refused_before_it_is_asked_for(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    push_folder(published, registry(memory_by_tag), "1")
    manifest = memory_by_tag.manifest(NAME, "1")
    manifest["layers"][0]["size"] = 1 << 39
    replaced(memory_by_tag, manifest)
    refused(memory_by_tag, store, tmp_path, DigestMismatchError, "more than any that bertir publishes")
    assert memory_by_tag.sent("GET", "blobs") == []


def test_bytes_that_are_not_what_the_manifest_says_are_refused(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    push_folder(published, registry(memory_by_tag), "1")
    digest = digest_of((published / "model.bin").read_bytes())
    memory_by_tag.faults.append(
        Fault(method="GET", path=digest, change=lambda body: b"\1" + body[1:], stays=True)
    )
    refused(memory_by_tag, store, tmp_path, DigestMismatchError, r"model\.bin: the digest is wrong")


def test_a_file_that_never_comes_whole_is_refused(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    push_folder(published, registry(memory_by_tag), "1")
    digest = digest_of((published / "model.bin").read_bytes())
    memory_by_tag.faults.append(Fault(method="GET", path=digest, after=0, stays=True))
    refused(memory_by_tag, store, tmp_path, FetchError, r"model\.bin:")


def test_an_image_is_no_model(memory_by_tag: MemoryRegistry, store: Store, tmp_path: Path) -> None:
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{'a' * 64}",
        "size": 2,
    }
    data = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    memory_by_tag.hold(NAME, "1", oci.MANIFEST, data)
    refused(memory_by_tag, store, tmp_path, FetchError, "is no model that bertir pushed")


# hostile attachments


def test_without_provenance_nothing_is_put_in_place(
    memory_by_tag: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    pushed = push_folder(published, registry(memory_by_tag), "1")
    del memory_by_tag.manifests[f"{NAME}:{fallback_tag(pushed.manifest)}"]
    refused(memory_by_tag, store, tmp_path, VerificationError, "no provenance of bertir's is attached")


@pytest.mark.parametrize(
    "stranger", ["files", "statement", "subject", "no manifest", "other bytes", "removed"]
)
def test_what_strangers_attach_is_passed_over(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path, stranger: str
) -> None:
    pushed = push_folder(published, registry(memory), "1")
    right = memory.manifest(NAME, str(pushed.provenance))
    number = 0
    while True:  # until one comes before the right one in the order of digests
        number += 1
        about = json.loads(json.dumps(right)) | {"annotations": {"n": str(number)}}
        if stranger == "files":
            about["layers"][2]["annotations"][oci.TITLE] = "../../evil"
        elif stranger == "statement":
            text = b'{"_type": "another"}'
            memory.blobs[digest_of(text)] = text
            about["layers"][0] |= {"digest": digest_of(text), "size": len(text)}
        elif stranger == "subject":
            about["subject"]["digest"] = f"sha256:{'0' * 64}"
        elif stranger == "no manifest":
            about["layers"] = number
        elif stranger == "other bytes":
            about["layers"][0]["digest"] = f"sha256:{'0' * 64}"
            memory.blobs[f"sha256:{'0' * 64}"] = bytes(about["layers"][0]["size"])
        data = json.dumps(about).encode()
        if digest_of(data) < str(pushed.provenance):
            break
    digest = memory.hold(NAME, digest_of(data), oci.MANIFEST, data)
    if not memory.referrers_api:
        tag = fallback_tag(pushed.manifest)
        entry = {
            "mediaType": oci.MANIFEST,
            "digest": digest,
            "size": len(data),
            "artifactType": PROVENANCE_KIND,
        }
        entries = [entry, *memory.manifest(NAME, tag)["manifests"]]
        memory.hold(NAME, tag, oci.INDEX, oci.index_of(entries))
    if stranger == "removed":
        del memory.manifests[f"{NAME}@{digest}"]
    assert pulled(memory, store, tmp_path / "there").provenance == pushed.provenance
    assert contents(tmp_path / "there") == contents(published)


# what is kept for the next time


def test_what_has_come_is_not_asked_for_again(
    memory: MemoryRegistry, store: Store, published: Path, tmp_path: Path
) -> None:
    push_folder(published, registry(memory), "1")
    digest = digest_of((published / PROVENANCE).read_bytes())
    memory.faults.append(Fault(method="GET", path=digest, status=404))
    with pytest.raises(FetchError):
        pulled(memory, store, tmp_path / "there")
    came = {asked.path for asked in memory.sent("GET", "blobs") if digest not in asked.path}
    memory.asked.clear()
    pulled(memory, store, tmp_path / "there")
    assert came
    assert came.isdisjoint({asked.path for asked in memory.sent("GET", "blobs")})
