"""Packages and wheels → the layers of the image. What is in the store already isn't made again.

The wheels' modules are compiled in a container while the layer of the wheels is written: both take long, and one
needs nothing of the other but the wheels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bertir.beside import Stop, beside
from bertir.image import interpreter_image, locked_image
from bertir.layer import debian_layer, pyc_layer, python_sources, wheel_entries, wheels_layer
from bertir.lock import LayerPin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.image import Image
    from bertir.intent import ImageIntent
    from bertir.lock import DebianPackage, ImageLock, WheelPin
    from bertir.store import Blob, Store
    from bertir.tree import Entry

    # Given the image of the interpreter and a tar of sources in the store: run docker/steps/precompile.py in the
    # one on the other, and give the path of the tar that came out, to be read while the `with` block lasts.
    Precompile = Callable[[Image, Blob], AbstractContextManager[Path]]


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Where the files of an image come from. Each is called only if its layer isn't in the store."""

    packages: Callable[[], Sequence[tuple[DebianPackage, Path]]]
    wheels: Callable[[], Sequence[tuple[WheelPin, Path]]]
    precompile: Precompile


def assemble_layers(
    store: Store, intent: ImageIntent, materials: Materials, *, expected: Sequence[LayerPin] = ()
) -> tuple[LayerPin, ...]:
    """Make the layers, or take those of `expected` that the store has.

    Raises:
        ImageError: a package or wheel can't be laid out.
        DigestMismatchError: a layer came out as another than the expected one, which is not kept.
    """
    pins = {pin.name: pin for pin in expected}
    layer = partial(made_or_stored, store, pins)
    debian = layer(
        "debian", lambda digest: debian_layer(store, intent, materials.packages(), expected=digest)
    )

    def compiled(layers: Sequence[Blob], entries: Sequence[Entry] = ()) -> LayerPin:
        def make(digest: Digest | None) -> Blob:
            sources = python_sources(store, intent, layers, entries)
            with materials.precompile(interpreter_image(intent, debian), sources) as pyc_tar:
                return pyc_layer(store, intent, pyc_tar, expected=digest)

        return layer("pyc", make)

    wheels = pins.get("wheels")
    if wheels is not None and store.has(wheels.blob):
        return debian, wheels, compiled([debian.blob, wheels.blob])
    with wheel_entries(intent, materials.wheels()) as entries:

        def written(stop: Stop) -> LayerPin:
            return layer(
                "wheels",
                lambda digest: wheels_layer(store, intent, stop.until(entries), expected=digest),
            )

        with beside(written) as writing:
            pyc = compiled([debian.blob], entries)
        return debian, writing.result(), pyc


def made_or_stored(
    store: Store, pins: Mapping[str, LayerPin], name: str, make: Callable[[Digest | None], Blob]
) -> LayerPin:
    """Give a layer, making it unless the store has the pinned one; `make` gets the digest that is expected, if any is."""
    pin = pins.get(name)
    if pin is not None and store.has(pin.blob):
        return pin
    blob = make(pin.digest if pin else None)
    return LayerPin(name=name, digest=blob.digest, size=blob.size)


def assemble_image(store: Store, intent: ImageIntent, lock: ImageLock, materials: Materials) -> Image:
    """Make sure that all layers of the locked image are in the store. Raises as its parts do."""
    image = locked_image(intent, lock)
    assemble_layers(store, intent, materials, expected=lock.layers)
    return image
