from __future__ import annotations

import io
import json
import re
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from damage import flip
from packages import SITE, make_deb, make_wheel, member, small_intent

from bertir.assemble import Materials, assemble_image, assemble_layers
from bertir.digest import Digest
from bertir.errors import DigestMismatchError, ImageError
from bertir.healing import healed
from bertir.image import (
    Image,
    archive,
    archive_size,
    describe_image,
    interpreter_image,
    locked_image,
    write_archive,
)
from bertir.lock import ImageLock, LayerPin
from bertir.progress import Progress
from bertir.store import Blob, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bertir.digest import HashingWriter


@pytest.fixture
def layers(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _layer(store: Store, name: str, data: bytes) -> LayerPin:
    blob = store.add_bytes(data)
    return LayerPin(name=name, digest=blob.digest, size=blob.size)


def _image(store: Store) -> Image:
    pins = [_layer(store, "debian", b"one" * 1000), _layer(store, "wheels", b"two" * 512)]
    return describe_image(small_intent(), pins)


def _lock(image: Image) -> ImageLock:
    return ImageLock(
        inputs={},
        platform="linux/amd64",
        debian=(),
        wheels=(),
        layers=image.layers,
        image_id=image.id,
        manifest=image.manifest_digest,
    )


def test_the_image_id_is_known_without_an_engine_and_never_changes() -> None:
    layer = LayerPin(name="debian", digest=Digest("a" * 64), size=1)
    image = describe_image(small_intent(), [layer])
    # Literal: it may change only with the format of the configuration, which every lock then changes with.
    assert str(image.id) == "sha256:29545332daec8527bae8e0f772892eef48ca4712e03a34fa80cd5137742293d2"
    assert image.reference == f"small:{image.id.short}"


def test_the_configuration_names_layers_environment_and_a_fixed_time() -> None:
    layer = LayerPin(name="debian", digest=Digest("a" * 64), size=1)
    config = json.loads(describe_image(small_intent(), [layer]).config)
    assert config["created"] == "2020-03-11T15:19:54Z"
    assert config["rootfs"]["diff_ids"] == [str(layer.digest)]
    assert config["config"]["Env"] == ["HOME=/tmp", "TZ=UTC"]
    assert len(config["history"]) == 1


def test_the_archive_is_an_oci_layout_and_a_docker_archive(layers: Store) -> None:
    image = _image(layers)
    data = b"".join(archive(layers, image))
    assert len(data) == archive_size(image)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {}
        for info in tar:
            file = tar.extractfile(info)
            assert file
            files[info.name] = file.read()
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert Digest.of_bytes(content).hex == name.removeprefix("blobs/sha256/")
    (docker,) = json.loads(files["manifest.json"])
    assert files[docker["Config"]] == image.config
    assert docker["RepoTags"] == [image.reference]
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files[f"blobs/{entry['digest'].replace(':', '/')}"])
    assert [f"blobs/{layer['digest'].replace(':', '/')}" for layer in manifest["layers"]] == docker["Layers"]
    assert {len(files[name]) for name in docker["Layers"]} == {3000, 1536}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_a_written_archive_is_whole_or_not_there(layers: Store, tmp_path: Path) -> None:
    image = _image(layers)
    target = tmp_path / "image.tar"
    write_archive(layers, image, target)
    assert target.read_bytes() == b"".join(archive(layers, image))
    layers.path(image.layers[1].digest).unlink()
    target.unlink()
    with pytest.raises(ImageError, match=r"the store lacks layers of small:.*: wheels"):
        write_archive(layers, image, target)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_archive_that_cannot_be_written_is_named(layers: Store, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"can't write .*image\.tar: No such file"):
        write_archive(layers, _image(layers), tmp_path / "missing" / "image.tar")


def test_the_interpreter_image_is_the_debian_layer_alone(layers: Store) -> None:
    image = _image(layers)
    assert interpreter_image(small_intent(), image.layers[0]).layers == image.layers[:1]


def test_a_lock_whose_layers_make_another_id_is_refused(layers: Store) -> None:
    image = _image(layers)
    assert locked_image(small_intent(), _lock(image)) == image
    other = describe_image(small_intent(), image.layers[:1])
    lock = _lock(other)
    wrong = ImageLock(**{**vars(lock), "layers": image.layers})
    with pytest.raises(ImageError, match="another image than the locked one"):
        locked_image(small_intent(), wrong)


T = TypeVar("T")


class _Parts:
    """Materials of a tiny image that counts how often each was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self._folder = folder
        self._deb = make_deb(folder, [member("./usr/lib/python3.11/os.py", b"x = 1")])
        self._wheel = make_wheel(folder, {"small.py": b"y = 1"})

    def materials(self) -> Materials:
        return Materials(
            packages=lambda: self._asked("packages", [self._deb]),
            wheels=lambda: self._asked("wheels", [self._wheel]),
            precompile=self._precompile,
        )

    def _asked(self, what: str, value: T) -> T:
        self.asked.append(what)
        return value

    @contextmanager
    def _precompile(self, image: Image, sources: Blob) -> Iterator[Path]:
        assert [layer.name for layer in image.layers] == ["debian"]
        assert sources.size
        self.asked.append("precompile")
        path = self._folder / "pyc.tar"
        with tarfile.open(path, "w") as tar:
            info, content = member(f"{SITE}/__pycache__/small.cpython-311.pyc", b"code")
            tar.addfile(info, io.BytesIO(content))
        yield path


def test_an_image_is_assembled_once_and_then_found_in_the_store(tmp_path: Path, layers: Store) -> None:
    parts = _Parts(tmp_path)
    pins = assemble_layers(layers, small_intent(), parts.materials())
    assert parts.asked == ["packages", "wheels", "precompile"]
    image = describe_image(small_intent(), pins)
    parts.asked.clear()
    assert assemble_image(layers, small_intent(), _lock(image), parts.materials()) == image
    assert not parts.asked
    layers.path(pins[2].digest).unlink()
    assemble_image(layers, small_intent(), _lock(image), parts.materials())
    assert parts.asked == ["precompile"]


def test_a_layer_that_comes_out_otherwise_is_refused(tmp_path: Path, layers: Store) -> None:
    image = describe_image(
        small_intent(), assemble_layers(layers, small_intent(), _Parts(tmp_path).materials())
    )
    (tmp_path / "changed").mkdir()
    changed = _Parts(tmp_path / "changed")
    changed._wheel = make_wheel(tmp_path / "changed", {"small.py": b"y = 2"})
    with pytest.raises(DigestMismatchError, match="the layer wheels: the digest is wrong"):
        assemble_image(Store(tmp_path / "fresh"), small_intent(), _lock(image), changed.materials())


def test_a_changed_wheel_leaves_the_debian_layer_as_it_is(tmp_path: Path, layers: Store) -> None:
    parts = _Parts(tmp_path)
    before = assemble_layers(layers, small_intent(), parts.materials())
    (tmp_path / "changed").mkdir()
    changed = _Parts(tmp_path / "changed")
    changed._wheel = make_wheel(tmp_path / "changed", {"small.py": b"y = 2"})
    after = assemble_layers(Store(tmp_path / "maintainer's"), small_intent(), changed.materials())
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    changed.asked.clear()
    assemble_image(layers, small_intent(), _lock(describe_image(small_intent(), after)), changed.materials())
    assert changed.asked == ["wheels"]


def test_what_is_left_out_of_wheels_is_no_matter_of_the_debian_layer(tmp_path: Path, layers: Store) -> None:
    parts = _Parts(tmp_path)
    parts._wheel = make_wheel(tmp_path, {"small.py": b"y = 1", "weight.so": b"weight"})
    before = assemble_layers(layers, small_intent(), parts.materials())
    intent = small_intent(exclude=[f"{SITE}/weight.so"])
    after = assemble_layers(Store(tmp_path / "maintainer's"), intent, parts.materials())
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert interpreter_image(intent, after[0]) == interpreter_image(small_intent(), before[0])
    parts.asked.clear()
    assemble_image(layers, intent, _lock(describe_image(intent, after)), parts.materials())
    assert parts.asked == ["wheels"], "neither packages nor, as no module changed, compiled modules"


class _Meeting(Store):
    """Holds the layer of wheels back until modules are being compiled."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.layer_begun, self.compiling_begun = threading.Event(), threading.Event()

    def add_written(self, write: Callable[[HashingWriter], None], **named: Any) -> Blob:
        if named["what"] == "the layer wheels":
            self.layer_begun.set()
            assert self.compiling_begun.wait(60), "the layer is written before modules are compiled"
        return super().add_written(write, **named)


def test_modules_are_compiled_while_the_layer_of_wheels_is_written(tmp_path: Path) -> None:
    parts, store = _Parts(tmp_path), _Meeting(tmp_path / "store")

    @contextmanager
    def precompile(image: Image, sources: Blob) -> Iterator[Path]:
        store.compiling_begun.set()
        assert store.layer_begun.wait(60), "modules are compiled before the layer is written"
        with parts._precompile(image, sources) as path:
            yield path

    found = assemble_layers(store, small_intent(), replace(parts.materials(), precompile=precompile))
    assert found == assemble_layers(Store(tmp_path / "other"), small_intent(), parts.materials())


def test_of_a_broken_wheel_the_wheel_is_told_of_and_not_what_came_of_it(
    tmp_path: Path, layers: Store
) -> None:
    parts = _Parts(tmp_path)
    parts._wheel = make_wheel(tmp_path, {"small.py": b"y = 1", "b": b"x"}, record={"b": "sha256=" + "A" * 43})

    def precompile(_: Image, __: Blob) -> AbstractContextManager[Path]:
        raise ImageError("the modules can't be compiled")

    with pytest.raises(ImageError, match="b is not what its wheel's RECORD says"):
        assemble_layers(layers, small_intent(), replace(parts.materials(), precompile=precompile))
    parts._wheel = make_wheel(tmp_path, {"small.py": b"y = 1"})
    with pytest.raises(ImageError, match="the modules can't be compiled"):
        assemble_layers(layers, small_intent(), replace(parts.materials(), precompile=precompile))


@pytest.mark.parametrize("pyc_is_gone", [False, True], ids=["read into the archive", "read for sources"])
def test_one_flipped_byte_in_each_layer_is_named_and_each_is_made_anew(
    tmp_path: Path, layers: Store, pyc_is_gone: bool
) -> None:
    parts, told, target = _Parts(tmp_path), io.StringIO(), tmp_path / "image.tar"
    pins = assemble_layers(layers, small_intent(), parts.materials())
    lock = _lock(describe_image(small_intent(), pins))

    def work() -> None:
        write_archive(layers, assemble_image(layers, small_intent(), lock, parts.materials()), target)

    work()
    whole = target.read_bytes()
    for pin in pins:
        flip(layers.path(pin.digest))
    if pyc_is_gone:
        layers.path(pins[2].digest).unlink()
    healed(work, Progress(stream=told))
    assert target.read_bytes() == whole
    said = ["a layer of the image"] * 2 if pyc_is_gone else [f"the layer {pin.name}" for pin in pins]
    assert re.findall(r"held other bytes for (.*) than it should", told.getvalue()) == said
