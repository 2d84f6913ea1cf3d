"""What is published is verified: whatever is off is named, and the exit status is 8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from done_build import done_builder
from hypothesis import given
from hypothesis import strategies as st
from some_build import FILES, VIRTUALENV, publish_some

from bertir.digest import Digest
from bertir.engines import DOCKER, LOCAL
from bertir.errors import ConfigurationError, VerificationError
from bertir.page import page
from bertir.provenance import provenance
from bertir.publish import publish
from bertir.redact import printable
from bertir.report import Request
from bertir.reproduce import engine_of, requested, require_same_pins
from bertir.signature import generate_key, load_private_key, sign
from bertir.store import Artifact, Store
from bertir.verify import Verified, verify_folder
from bertir.wanted import Given

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.report import Build

SUMMED = sorted(FILES)
EVERY = [*SUMMED, "SHA256SUMS", "provenance.json", "report.json"]  # of report.html there may be none


@pytest.fixture
def folder(root: Path, tmp_path: Path, store: Store) -> Path:
    return publish_some(root / "models.toml", tmp_path / "dist", store)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "k")
    return tmp_path / "k"


def sign_folder(folder: Path, key: Path) -> Path:
    envelope = sign((folder / "provenance.json").read_bytes(), load_private_key(key))
    (folder / "provenance.intoto.jsonl").write_bytes(envelope)
    return key.with_name(f"{key.name}.pub")


def refusal(folder: Path, key: Path | None = None) -> str:
    with pytest.raises(VerificationError) as caught:
        verify_folder(folder, key)
    assert caught.value.exit_status == 8
    return str(caught.value)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def test_a_published_folder_is_right_wherever_it_lies(folder: Path, tmp_path: Path, key: Path) -> None:
    public = sign_folder(folder, key)
    moved = tmp_path / "elsewhere under another name"
    shutil.copytree(folder, moved)
    for place in (folder, moved):
        verified = verify_folder(place, public)
        assert verified.subject == Digest.of_file(folder / "SHA256SUMS")
        assert dict(verified.files) == {name: Digest.of_bytes(data) for name, data in FILES.items()}
        assert verified.external_parameters["model"] == "all-minilm-l6-v2"
        assert verified.signed_by
        assert verify_folder(place).signed_by is None


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name}: missing" in refusal(folder)


@pytest.mark.parametrize("name", EVERY)
def test_a_renamed_file_is_named_under_both_names(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "other")
    said = refusal(folder)
    assert f"{name}: missing" in said
    if name != "SHA256SUMS":  # without it, nothing else can be told
        assert "other: not one of the published files" in said


@pytest.mark.parametrize("name", EVERY)
def test_a_link_in_the_place_of_a_file_is_named_even_to_the_same_bytes(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (folder / name).rename(tmp_path / "real")
    (folder / name).symlink_to(tmp_path / "real")
    assert f"{name}: a link to {tmp_path / 'real'}" in refusal(folder)


@pytest.mark.parametrize("name", ["added", ".hidden", "model.xml~", "a b\nc"])
def test_an_added_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert f"{printable(name)}: not one of the published files" in refusal(folder)


def test_no_name_of_a_file_moves_the_cursor_or_makes_a_line_of_its_own(folder: Path) -> None:
    (folder / "x\x1b[2J\nok: fine").write_bytes(b"")
    said = refusal(folder)
    assert "\x1b" not in said
    assert r"x\x1b[2J\nok: fine: not one of the published files" in said


def test_an_added_folder_and_a_pipe_are_named_and_not_waited_for(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "vocab.txt").unlink()
    os.mkfifo(folder / "vocab.txt")
    said = refusal(folder)
    assert "sub: not a file" in said
    assert "vocab.txt: not a file" in said


@pytest.mark.parametrize("name", SUMMED)
def test_a_changed_file_is_named_with_both_digests(folder: Path, name: str) -> None:
    data = FILES[name][:-1] + b"!"
    (folder / name).write_bytes(data)
    expected = f"{name}: expected {Digest.of_bytes(FILES[name])}, found {Digest.of_bytes(data)}"
    assert expected in refusal(folder)


def test_everything_that_is_off_is_told_at_once(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"")
    (folder / "vocab.txt").unlink()
    (folder / "more").write_bytes(b"")
    said = refusal(folder)
    assert all(word in said for word in ("model.bin: expected", "vocab.txt: missing", "more: not one of"))


@pytest.fixture(scope="module")
def standing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("standing")
    folder = publish_some(root / "models.toml", place / "dist", Store(place / "store"))
    generate_key(place / "k")
    sign_folder(folder, place / "k")
    return folder


@given(data=st.data())
def test_one_bit_changed_anywhere_is_found_without_a_key(standing: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(EVERY))
    path = standing / name
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        said = refusal(standing)
    finally:
        path.write_bytes(whole)
    assert name in said or "provenance.json" in said


@given(
    change=st.sampled_from(
        [
            "predicate",
            "subject",
            "_type",
            "predicateType",
            "buildDefinition",
            "runDetails",
            "externalParameters",
        ]
    ),
    value=st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2) | st.just({}),
)
def test_a_malformed_statement_ends_in_one_message(standing: Path, change: str, value: object) -> None:
    path = standing / "provenance.json"
    whole = path.read_bytes()

    def replaced(statement: dict[str, Any]) -> None:
        for holder in (statement, statement["predicate"], statement["predicate"]["buildDefinition"]):
            if change in holder:
                holder[change] = value
                return

    edit(path, replaced)
    try:
        assert "provenance.json" in refusal(standing)
    finally:
        path.write_bytes(whole)


@given(
    content=st.binary(max_size=200) | st.sampled_from([b"[]", b"{}", b"1", b"[" * 100_000, b'{"format": 3}'])
)
def test_whatever_stands_in_report_or_statement_ends_in_one_message(standing: Path, content: bytes) -> None:
    for name in ("provenance.json", "report.json"):
        path = standing / name
        whole = path.read_bytes()
        path.write_bytes(content)
        try:
            assert name in refusal(standing)
        finally:
            path.write_bytes(whole)


@given(content=st.binary(max_size=200))
def test_whatever_stands_in_the_sums_ends_in_one_message(standing: Path, content: bytes) -> None:
    path = standing / "SHA256SUMS"
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        assert "SHA256SUMS" in refusal(standing)
    finally:
        path.write_bytes(whole)


def test_an_unknown_parameter_is_named(folder: Path) -> None:
    parameters = "externalParameters"
    edit(
        folder / "provenance.json",
        lambda value: value["predicate"]["buildDefinition"][parameters].update(evil="1", also=2),
    )
    assert "unknown externalParameters: also, evil" in refusal(folder)


def test_an_edited_statement_is_told_by_its_place(folder: Path) -> None:
    def edited(value: dict[str, Any]) -> None:
        value["predicate"]["buildDefinition"]["externalParameters"]["precision"] = "fp32"

    edit(folder / "provenance.json", edited)
    said = refusal(folder)
    assert 'predicate.buildDefinition.externalParameters.precision is "fp32"' in said
    assert 'report.json gives "fp16"' in said


def test_an_edited_report_is_told_by_its_digest_in_the_statement(folder: Path) -> None:
    edit(folder / "report.json", lambda value: value["parity"].update(max_abs_difference=0.0))
    assert "predicate.runDetails.byproducts[0].digest.sha256" in refusal(folder)


def test_a_statement_about_other_files_is_refused(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"evil")
    lines = {name: f"{Digest.of_file(folder / name).hex}  {name}\n" for name in SUMMED}
    (folder / "SHA256SUMS").write_text("".join(lines[name] for name in SUMMED))
    said = refusal(folder)
    assert "provenance.json: its subject isn't this SHA256SUMS" in said


def forge(folder: Path) -> None:
    """Put another model.bin there, and make sums, report and statement fit it."""
    before = Digest.of_file(folder / "model.bin").hex
    (folder / "model.bin").write_bytes(b"evil")
    after = Digest.of_bytes(b"evil").hex
    for name in ("SHA256SUMS", "report.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert before in text
        (folder / name).write_text(text.replace(before, after), encoding="utf-8")
    stated = provenance((folder / "report.json").read_bytes(), (folder / "SHA256SUMS").read_bytes())
    (folder / "provenance.json").write_bytes(stated)
    (folder / "report.html").write_bytes(page(json.loads((folder / "report.json").read_bytes())))


def test_a_page_of_another_report_is_told_and_none_at_all_is_as_it_was_before_there_were_pages(
    folder: Path,
) -> None:
    shown = (folder / "report.html").read_bytes()
    (folder / "report.html").write_bytes(shown.replace(b"fp16", b"fp32"))
    assert "report.html: not the page of report.json" in refusal(folder)
    (folder / "report.html").unlink()
    verify_folder(folder)


def test_how_another_version_of_bertir_drew_its_page_is_not_judged(folder: Path) -> None:
    told = json.loads((folder / "report.json").read_bytes()) | {"bertir": "0.0.9"}
    (folder / "report.json").write_bytes(json.dumps(told).encode())
    sums = (folder / "SHA256SUMS").read_bytes()
    (folder / "provenance.json").write_bytes(provenance((folder / "report.json").read_bytes(), sums))
    verify_folder(folder)


def test_what_no_one_without_a_key_can_find_the_key_finds(folder: Path, key: Path, tmp_path: Path) -> None:
    public = sign_folder(folder, key)
    forge(folder)
    assert "provenance.intoto.jsonl: what was signed is another statement" in refusal(folder)
    assert "provenance.intoto.jsonl: what was signed is another statement" in refusal(folder, public)
    generate_key(tmp_path / "forger")
    sign_folder(folder, tmp_path / "forger")
    assert verify_folder(folder).files["model.bin"] == Digest.of_bytes(b"evil")  # consistent, and forged
    assert "not signed by the key" in refusal(folder, public)


def test_files_that_the_report_does_not_tell_the_making_of_are_named(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"evil")
    (folder / "evil.so").write_bytes(b"evil")
    names = sorted([*SUMMED, "evil.so"])
    sums = "".join(f"{Digest.of_file(folder / name).hex}  {name}\n" for name in names).encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    (folder / "provenance.json").write_bytes(provenance((folder / "report.json").read_bytes(), sums))
    said = refusal(folder)
    assert "model.bin: report.json tells of the making of another one" in said
    assert "SHA256SUMS: lists evil.so, which bertir doesn't publish" in said


@pytest.mark.parametrize(
    "content", [b"garbage", b"{}", b"[]", b'{"payload": "!", "signatures": []}', b"[" * 100_000]
)
def test_a_broken_envelope_is_told_without_a_key_too(folder: Path, content: bytes) -> None:
    (folder / "provenance.intoto.jsonl").write_bytes(content)
    assert "provenance.intoto.jsonl: not a DSSE envelope" in refusal(folder)


def test_an_envelope_without_a_signature_is_told(folder: Path, key: Path) -> None:
    sign_folder(folder, key)
    edit(folder / "provenance.intoto.jsonl", lambda value: value["signatures"].clear())
    assert "provenance.intoto.jsonl: nobody's signature is in it" in refusal(folder)


def test_another_key_is_told(folder: Path, key: Path, tmp_path: Path) -> None:
    sign_folder(folder, key)
    generate_key(tmp_path / "other")
    assert "not signed by the key" in refusal(folder, tmp_path / "other.pub")


def test_a_folder_that_nobody_signed_is_told_where_a_key_is_asked_for(folder: Path, key: Path) -> None:
    assert "nobody signed this build" in refusal(folder, key.with_name("k.pub"))


def test_a_broken_envelope_is_told_where_a_key_is_asked_for(folder: Path, key: Path) -> None:
    public = sign_folder(folder, key)
    (folder / "provenance.intoto.jsonl").write_bytes(b"{}")
    assert "not a DSSE envelope" in refusal(folder, public)


def test_a_build_that_lacks_what_every_build_has_is_refused(folder: Path) -> None:
    edit(folder / "report.json", lambda value: value["request"].update(recipe=None))
    report, sums = ((folder / name).read_bytes() for name in ("report.json", "SHA256SUMS"))
    (folder / "provenance.json").write_bytes(provenance(report, sums))
    assert "externalParameters lack recipe" in refusal(folder)


def test_however_deep_a_statement_is_nested_it_ends_in_one_message(folder: Path) -> None:
    path = folder / "provenance.json"
    whole = path.read_text(encoding="utf-8")
    for depth in range(850, 1000):
        path.write_text(
            whole.replace('"https://in-toto.io/Statement/v1"', "[" * depth + "]" * depth), encoding="utf-8"
        )
        assert "provenance.json" in refusal(folder)


def test_a_report_of_another_format_says_who_can_read_it(folder: Path) -> None:
    edit(folder / "report.json", lambda value: value.update(format=99, bertir="7.0"))
    said = refusal(folder)
    assert "of format 99" in said
    assert "7.0" in said


def test_a_report_that_would_fill_the_memory_is_not_read(folder: Path) -> None:
    with (folder / "report.json").open("r+b") as file:
        file.truncate(65 << 20)
    assert "larger than any that bertir writes" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "size"), [("vocab.txt", 65 << 20), ("model.xml", 1 << 40), ("model.bin", 1 << 40)]
)
def test_a_file_of_a_size_that_is_never_published_is_not_hashed(folder: Path, name: str, size: int) -> None:
    os.truncate(folder / name, size)  # it has holes: no byte more on the disk
    begun = time.monotonic()
    assert f"{name}: larger than any that bertir publishes" in refusal(folder)
    assert time.monotonic() - begun < 2


def test_of_a_thousand_files_that_are_not_bertirs_some_are_named_and_the_rest_counted(folder: Path) -> None:
    for number in range(1000):
        (folder / f"file-{number}").touch()
    message = refusal(folder)
    assert len(message.splitlines()) < 50
    assert "… and 960 more" in message


def test_no_such_folder_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="none"):
        verify_folder(tmp_path / "none")


def test_a_folder_that_bertir_did_not_publish_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    assert "SHA256SUMS: missing" in refusal(tmp_path / "some")


def test_signatures_stay_as_long_as_nothing_else_changes(
    root: Path, folder: Path, store: Store, key: Path
) -> None:
    public = sign_folder(folder, key)
    assert publish_some(root / "models.toml", folder.parents[1], store) == folder
    assert verify_folder(folder, public).signed_by

    def later(build: Build) -> Build:
        [step] = build.steps
        return replace(build, steps=(replace(step, facts=dict(step.facts) | {"seconds": 2.0}),))

    publish_some(root / "models.toml", folder.parents[1], store, later)
    assert not (folder / "provenance.intoto.jsonl").exists()
    verify_folder(folder)


def test_whose_signatures_are_dropped_is_told(store: Store, tmp_path: Path) -> None:
    place = tmp_path / "dist" / "m" / "v"
    told = {"report.json": b'{"bertir": "0.1.0"}'}
    files = {name: store.add_bytes(data) for name, data in (FILES | told).items()}
    publish(store, Artifact(files=files), place)
    (place / "provenance.intoto.jsonl").write_bytes(b"x")
    assert not publish(store, Artifact(files=files), place).signatures_dropped
    changed = files | {"vocab.txt": store.add_bytes(b"[UNK]\n")}
    assert publish(store, Artifact(files=changed), place).signatures_dropped
    assert not publish(store, Artifact(files=files), place).signatures_dropped


def test_verifying_takes_no_heavy_import(root: Path, folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from bertir.verify import Verified, verify_folder;"
        "verify_folder(Path(sys.argv[1])); print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root / "src")},
    )
    heavy = {"docker", "git", "requests", "numpy", "tensorflow", "cryptography", "securesystemslib", "debian"}
    loaded = set(done.stdout.split())
    assert "bertir.verify" in loaded
    assert not heavy & loaded


# the request that a provenance stands for


@pytest.mark.parametrize(
    "request_",
    [
        Request(model="all-minilm-l6-v2"),
        Request(model="all-minilm-l6-v2", precision="fp32", head="sequence", batch=4, seq_len=64),
        Request(model="all-minilm-l6-v2", recipe="meta-graph"),
        Request(model="all-minilm-l6-v2", task_data="mrpc"),
    ],
)
def test_a_request_comes_back_from_its_provenance(
    root: Path, tmp_path: Path, store: Store, request_: Request
) -> None:
    def asked(build: Build) -> Build:
        return replace(build, request=request_)

    place = publish_some(root / "models.toml", tmp_path / "dist", store, asked)
    again = requested(verify_folder(place).external_parameters, Given())
    assert again.facts() == request_.facts() | {"model": "all-minilm-l6-v2"}
    assert again.variant == request_.variant


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"batch": "1"}, "batch"),
        ({"batch": True}, "batch"),
        ({"model": 1}, "model"),
        ({"task_data": "glue"}, "task_data"),
        ({"model": None}, "model"),
        ({"checkpoint": {}}, "checkpoint"),
    ],
)
def test_parameters_that_no_build_can_have_are_refused(change: dict[str, Any], word: str) -> None:
    parameters = {"model": "m", "recipe": "reshapable", "precision": "fp16", "head": "pooled"} | change
    with pytest.raises((VerificationError, ConfigurationError), match=word):
        requested(parameters, Given())


@pytest.mark.parametrize(
    ("parameters", "option"),
    [
        ({"checkpoint": {"name": "mine"}}, "--checkpoint"),
        ({"model": "m", "task_data": "own"}, "--task-data"),
    ],
)
def test_files_of_the_users_own_are_asked_for(parameters: dict[str, Any], option: str) -> None:
    wanted = {"recipe": "reshapable", "precision": "fp16", "head": "pooled"} | parameters
    with pytest.raises(ConfigurationError) as caught:
        requested(wanted, Given())
    assert option in caught.value.advice


# what was built without a container


def test_a_folder_that_was_built_in_a_virtualenv_is_verified_and_claims_no_image(
    root: Path, tmp_path: Path, store: Store
) -> None:
    folder = publish_some(
        root / "models.toml", tmp_path / "dist", store, lambda build: replace(build, virtualenv=VIRTUALENV)
    )
    assert verify_folder(folder).statement["subject"][0]["name"] == "SHA256SUMS"
    path = folder / "provenance.json"
    statement = json.loads(path.read_bytes())
    listed = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    listed.append({"name": "image", "digest": {"sha256": "0" * 64}})
    path.write_text(json.dumps(statement, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert "resolvedDependencies" in refusal(folder)


def stated(builder: Builder, virtualenv: Digest) -> Verified:
    """A folder whose statement names this checkout's own pins, and a virtualenv."""
    source = builder.pins.source
    listed = [
        {"name": "source", "digest": {"gitCommit": source.commit}},
        {"name": "virtualenv", "digest": {"sha256": virtualenv.hex}},
        *({"name": f"patches/{name}", "digest": {"sha256": value.hex}} for name, value in source.patches),
    ]
    own = [{"name": "bertir", "digest": {"gitCommit": "c" * 40}, "annotations": {"version": "0.1.0"}}]
    predicate = {
        "buildDefinition": {"resolvedDependencies": listed},
        "runDetails": {"builder": {"builderDependencies": own}},
    }
    return Verified(
        folder=builder.layout.root,
        subject=virtualenv,
        files={},
        stated=b"",
        statement={"predicate": predicate},
        report=b"",
        signed_by=None,
    )


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the tests' own Python isn't 3.11")
def test_what_was_built_in_a_virtualenv_is_rebuilt_in_the_same_one_or_not_at_all(store: Store) -> None:
    builder = done_builder(store, chosen=LOCAL)
    same = stated(builder, builder.runtime.identity)
    assert engine_of(same) == LOCAL
    require_same_pins(builder, same)
    with pytest.raises(VerificationError, match="in a virtualenv that can't be made here") as caught:
        require_same_pins(builder, stated(builder, Digest("0" * 64)))
    assert "--engine docker" in caught.value.advice


def test_what_was_built_in_the_image_is_rebuilt_in_a_container(folder: Path) -> None:
    assert engine_of(verify_folder(folder)) == DOCKER
