from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.digest import Digest
from bertir.errors import BertirError, ConfigurationError, LockError, StaleLockError
from bertir.upstream import (
    SOURCE_LOCK,
    SourceLock,
    Upstream,
    dump_source_lock,
    load_series,
    load_source_lock,
    load_upstream,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture
def patches(tmp_path: Path, root: Path) -> Path:
    """A copy of the project's own `patches/`, without a lock."""
    shutil.copytree(root / "patches", tmp_path / "patches", ignore=shutil.ignore_patterns(SOURCE_LOCK))
    return tmp_path / "patches"


def lock_of(upstream: Upstream) -> SourceLock:
    return SourceLock(
        intent=upstream.intent,
        commit=upstream.commit,
        tree="a" * 40,
        pristine={name: Digest.of_bytes(name.encode()) for name in upstream.files},
        patched={name: Digest.of_bytes(name.encode() + b"!") for name in upstream.files},
        patches=tuple((patch.name, patch.digest) for patch in upstream.series),
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


# upstream.toml


def test_the_projects_pins_are_read(patches: Path) -> None:
    upstream = load_upstream(patches)
    assert len(upstream.commit) == 40
    assert set(upstream.files) == set(upstream.mirror.members) >= {"modeling.py", "run_classifier.py"}
    assert [patch.name for patch in upstream.series] == sorted(patch.name for patch in upstream.series)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('url = "', 'url = 1 #"', "expected a text, found 1"),
        ('url = "', 'url = "" #"', "expected a text, found ''"),
        ("url =", "URL =", "lacks 'url'"),
        ('commit = "e', 'commit = "E', "expected a Git object id"),
        ('commit = "e', 'commit = "', "expected a Git object id"),
        ('commit = "', 'commit = 5 #"', "expected a Git object id"),
        ("commit_time = 1", "commit_time = -1", "expected a whole number"),
        ("commit_time = 1", "commit_time = true #", "expected a whole number"),
        ("commit_time = 1", "commit_time = 1.", "expected a whole number"),
        ("[files]", "[other]", "lacks 'files'"),
        ("[files]", "[mirror.files]", "lacks 'files'|declared twice|not TOML"),
        ("[mirror]", "[[mirror]]", "not TOML|list"),
        ("[mirror.members]", "[mirror.other]", "lacks 'members'"),
        ('sha256 = "', 'sha256 = "sha256:', "not a sha256"),
        ('sha256 = "3', 'sha256 = "', "not a sha256"),
        ('"modeling.py" = "f', '"../modeling.py" = "f', "not a plain file name"),
        ('"modeling.py" = "f', '".git" = "f', "not a plain file name"),
        ('"modeling.py" = "f', '"-rf" = "f', "not a plain file name"),
        ('"modeling.py" = "f', '"" = "f', "not a plain file name"),
        ('"modeling.py" = "f', '"other.py" = "f', "must name the same files"),
        ('"modeling.py" = "f', '"modeling.py" = "g', "expected a Git object id"),
        ('"modeling.py" = "b', '"modeling.py" = 1 #"b', "expected a text"),
        ("[files]", "[files", "is not TOML"),
        ("[files]", "[files]\nfiles = 1", "Git object id"),
    ],
)
def test_a_malformed_pin_is_one_configuration_error(patches: Path, old: str, new: str, message: str) -> None:
    edit(patches / "upstream.toml", old, new)
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_upstream(patches)
    assert "upstream.toml" in str(raised.value)


@given(st.binary(max_size=40), st.integers(0, 400))
def test_whatever_upstream_toml_holds_it_ends_in_one_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
) -> None:
    folder = tmp_path_factory.mktemp("patches")
    (folder / "mirror").mkdir()
    (folder / "series").touch()
    (folder / "mirror" / "series").touch()
    good = (
        f'url = "/r"\ncommit = "{"a" * 40}"\ncommit_time = 1\nfiles = {{"m.py" = "{"b" * 40}"}}\n'
        f'[mirror]\nname = "m"\nversion = "1"\nsha256 = "{"c" * 64}"\nmembers = {{"m.py" = "m"}}\n'
    ).encode()
    spoilt = good[:at] + data + good[at + len(data) :]
    (folder / "upstream.toml").write_bytes(spoilt)
    try:
        upstream = load_upstream(folder)
    except ConfigurationError:
        return
    assert len(upstream.commit) == 40
    assert upstream.commit_time >= 0


def test_a_missing_or_unreadable_file_is_named(patches: Path) -> None:
    (patches / "upstream.toml").unlink()
    with pytest.raises(ConfigurationError, match=r"can't read .*upstream\.toml: No such file"):
        load_upstream(patches)
    (patches / "upstream.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"upstream\.toml"):
        load_upstream(patches)


# series


def test_comments_and_blank_lines_are_no_patches(patches: Path) -> None:
    before = load_upstream(patches)
    edit(patches / "series", "# ", "\n#! ")
    after = load_upstream(patches)
    assert after.series == before.series
    assert after.intent == before.intent


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0011-absent.patch", r"can't read .*0011-absent\.patch, which .*series names: No such file"),
        ("../0001-x.patch", "not a patch's name"),
        ("/etc/0001-x.patch", "not a patch's name"),
        ("-R.patch", "not a patch's name"),
        ("0001-x.patch extra", "not a patch's name"),
        ("0001-modeling-always-read-the-dynamic-shape.patch", "names a patch twice"),
    ],
)
def test_an_odd_line_of_a_series_is_one_configuration_error(patches: Path, line: str, message: str) -> None:
    with (patches / "series").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigurationError, match=message):
        load_upstream(patches)


def test_a_patch_that_no_series_names_is_not_forgotten(patches: Path) -> None:
    (patches / "mirror" / "0002-forgotten.patch").touch()
    with pytest.raises(ConfigurationError, match=r"mirror/series does not name 0002-forgotten\.patch"):
        load_upstream(patches)


def test_a_series_that_is_no_text_is_named(patches: Path) -> None:
    (patches / "series").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match="patches/series"):
        load_series(patches)
    with pytest.raises(ConfigurationError, match="patches/series"):
        load_upstream(patches)


def test_a_missing_series_is_named(patches: Path) -> None:
    (patches / "mirror" / "series").unlink()
    with pytest.raises(ConfigurationError, match=r"can't read .*mirror/series"):
        load_upstream(patches)


# what the lock follows from


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit(folder / "upstream.toml", 'url = "', 'url = "https://elsewhere/'),
        lambda folder: edit(folder / "upstream.toml", 'commit = "e', 'commit = "f'),
        lambda folder: edit(folder / "upstream.toml", "commit_time = 1", "commit_time = 2"),
        lambda folder: edit(folder / "upstream.toml", '"LICENSE" = "d6', '"LICENSE" = "d7'),
        lambda folder: edit(folder / "upstream.toml", 'version = "1.0.1"', 'version = "1.0.2"'),
        lambda folder: edit(folder / "upstream.toml", 'sha256 = "3f', 'sha256 = "4f'),
        lambda folder: edit(folder / "upstream.toml", '"bert/modeling.py"', '"b/modeling.py"'),
        lambda folder: edit(next(folder.glob("0001-*.patch")), "Subject: ", "Subject:  "),
        lambda folder: edit(next((folder / "mirror").glob("0001-*.patch")), "Subject: ", "Subject:  "),
    ],
)
def test_a_change_of_any_pin_makes_the_lock_stale(patches: Path, change: Callable[[Path], None]) -> None:
    before = load_upstream(patches)
    (patches / SOURCE_LOCK).write_bytes(dump_source_lock(lock_of(before)))
    change(patches)
    with pytest.raises(StaleLockError) as raised:
        load_source_lock(patches, load_upstream(patches))
    assert raised.value.exit_status == 3
    assert "invoke lock" in raised.value.advice


def test_a_comment_does_not_make_the_lock_stale(patches: Path) -> None:
    lock = lock_of(load_upstream(patches))
    (patches / SOURCE_LOCK).write_bytes(dump_source_lock(lock))
    edit(patches / "upstream.toml", "# By hand", "# Written by hand")
    assert load_source_lock(patches, load_upstream(patches)) == lock


def test_a_stale_lock_says_what_changed(patches: Path) -> None:
    first, second, *_ = sorted(patches.glob("*.patch"))
    (patches / SOURCE_LOCK).write_bytes(dump_source_lock(lock_of(load_upstream(patches))))
    edit(first, "Subject: ", "Subject:  ")
    edit(patches / "series", f"{second.name}\n", "0099-new.patch\n")
    second.rename(patches / "0099-new.patch")
    with pytest.raises(StaleLockError) as raised:
        load_source_lock(patches, load_upstream(patches))
    assert str(raised.value).endswith(
        f"is stale: {second.name} is gone, 0099-new.patch is new, {first.name} has changed"
    )


def test_another_order_of_patches_is_said(patches: Path) -> None:
    upstream = load_upstream(patches)
    (patches / SOURCE_LOCK).write_bytes(dump_source_lock(lock_of(upstream)))
    swapped = replace(upstream, series=(upstream.series[1], upstream.series[0], *upstream.series[2:]))
    with pytest.raises(StaleLockError, match="the order of the series has changed"):
        load_source_lock(patches, swapped)


# source.lock


def test_a_lock_reads_back_and_has_one_form(patches: Path) -> None:
    upstream = load_upstream(patches)
    lock = lock_of(upstream)
    data = dump_source_lock(lock)
    (patches / SOURCE_LOCK).write_bytes(data)
    assert load_source_lock(patches, upstream) == lock
    assert dump_source_lock(replace(lock, pristine=dict(sorted(lock.pristine.items(), reverse=True)))) == data


def test_a_missing_lock_says_what_to_run(patches: Path) -> None:
    with pytest.raises(LockError, match=r"there is no .*source\.lock") as raised:
        load_source_lock(patches, load_upstream(patches))
    assert "invoke lock" in raised.value.advice


def test_a_lock_that_is_a_folder_is_a_lock_error(patches: Path) -> None:
    (patches / SOURCE_LOCK).mkdir()
    with pytest.raises(LockError, match=r"source\.lock"):
        load_source_lock(patches, load_upstream(patches))


@given(data=st.data())
def test_a_lock_with_any_field_spoilt_ends_in_one_lock_error(
    tmp_path_factory: pytest.TempPathFactory, root: Path, data: st.DataObject
) -> None:
    upstream = load_upstream(root / "patches")  # of the checkout; the lock is made here
    folder = tmp_path_factory.mktemp("patches")
    value: dict[str, Any] = json.loads(dump_source_lock(lock_of(upstream)))
    field = data.draw(st.sampled_from(sorted(set(value) - {"note"})))
    inner = value[field]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
    elif data.draw(st.booleans()):
        value[field] = data.draw(JSON)
    else:
        del value[field]
    (folder / SOURCE_LOCK).write_text(json.dumps(value))
    with pytest.raises(LockError):
        load_source_lock(folder, upstream)


@given(data=st.data())
def test_a_lock_of_other_bytes_ends_in_one_lock_error_or_is_a_lock(
    tmp_path_factory: pytest.TempPathFactory, root: Path, data: st.DataObject
) -> None:
    upstream = load_upstream(root / "patches")
    folder = tmp_path_factory.mktemp("patches")
    good = bytearray(dump_source_lock(lock_of(upstream)))
    at = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        del good[at:]
    else:
        good[at] = data.draw(st.integers(0, 255))
    (folder / SOURCE_LOCK).write_bytes(good)
    try:
        lock = load_source_lock(folder, upstream)
    except LockError:
        return
    assert lock.intent == upstream.intent
    assert set(lock.pristine) == set(lock.patched) == set(upstream.files)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "1", "<<<<<<< HEAD\n{}\n", "[" * 100_000, '{"intent": 1}']
)
def test_what_is_no_lock_is_one_lock_error(patches: Path, text: str) -> None:
    (patches / SOURCE_LOCK).write_text(text)
    with pytest.raises(LockError, match=r"source\.lock is not a source lock"):
        load_source_lock(patches, load_upstream(patches))


@pytest.mark.parametrize("field", ["pristine", "patched"])
def test_a_lock_that_lacks_a_file_or_has_one_more_is_refused(patches: Path, field: str) -> None:
    upstream = load_upstream(patches)
    value = json.loads(dump_source_lock(lock_of(upstream)))
    changes: list[dict[str, str]] = [{}, value[field] | {"more.py": str(upstream.intent)}]
    for change in changes:
        (patches / SOURCE_LOCK).write_text(json.dumps(value | {field: change}))
        with pytest.raises(LockError):
            load_source_lock(patches, upstream)


@pytest.mark.parametrize("change", [{"commit": "0" * 40}, {"patches": []}])
def test_a_lock_edited_by_hand_does_not_speak_for_the_pins(patches: Path, change: dict[str, Any]) -> None:
    upstream = load_upstream(patches)
    value = json.loads(dump_source_lock(lock_of(upstream)))
    (patches / SOURCE_LOCK).write_text(json.dumps(value | change))
    with pytest.raises(BertirError) as raised:
        load_source_lock(patches, upstream)
    assert isinstance(raised.value, LockError)
