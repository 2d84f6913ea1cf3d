"""Small Debian packages and wheels, made of bytes alone, and an image intent to lay them out by."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.intent import DebianIntent, File, Folder, ImageIntent, PythonIntent
from bertir.layer import wheel_entries, wheels_layer
from bertir.lock import DebianPackage, WheelPin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.store import Blob, Store

TIME = 1583939994
SITE = "usr/local/lib/python3.11/dist-packages"


def small_intent(
    *, exclude: Sequence[str] = (), keep: Sequence[str] = (), owners: Mapping[str, str] | None = None
) -> ImageIntent:
    return ImageIntent(
        name="small",
        platform="linux/amd64",
        source_date_epoch=TIME,
        user="65532:65532",
        workdir="/",
        command=("/bin/sh",),
        labels={},
        environment={"TZ": "UTC", "HOME": "/tmp"},
        debian=DebianIntent(
            suite="bookworm",
            component="main",
            architecture="amd64",
            packages=("small",),
            exclude=tuple(exclude),
            keep=tuple(keep),
        ),
        python=PythonIntent(
            version="3.11",
            glibc="2.36",
            machine="x86_64",
            requirements=("small",),
            exclude=tuple(exclude),
            owners=owners or {},
        ),
        files=(File(path="etc/passwd", text="root:x:0:0:root:/root:/bin/sh\n"),),
        folders=(Folder(path="out", mode=0o1777),),
    )


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o600
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a package's data.tar, with modes, times and owners that no layer may keep."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(content), link, mode
    info.mtime, info.uid, info.gid, info.uname = 1234567890, 1000, 1000, "somebody"
    return info, content


def make_deb(
    folder: Path,
    members: Sequence[tuple[tarfile.TarInfo, bytes]],
    *,
    name: str = "small",
    version: str = "1:1.0-1",
    script: bytes = b"",
    control: str = "",
) -> tuple[DebianPackage, Path]:
    """Make a package; `control` is more lines of its control file."""
    text = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n{control}Description: small\n"
    controls = [member("./control", text.encode())]
    if script:
        controls.append(member("./postinst", script, mode=0o755))
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _tar(controls, "w:xz"),  # gzip's header has the clock in it
        "data.tar.xz": _tar(members, "w:xz"),
    }
    data = ar(parts)
    path = folder / f"{name}.deb"
    path.write_bytes(data)
    package = DebianPackage(
        name=name,
        version=version,
        architecture="amd64",
        pool_path=f"pool/main/s/{name}/{name}.deb",
        size=len(data),
        digest=Digest.of_bytes(data),
    )
    return package, path


def ar(parts: Mapping[str, bytes]) -> bytes:
    """The outer archive of a package."""
    data = b"!<arch>\n"
    for part, content in parts.items():
        header = f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += header + content + b"\n" * (len(content) % 2)
    return data


def _tar(members: Sequence[tuple[tarfile.TarInfo, bytes]], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "small",
    version: str = "1.0",
    entry_points: str = "",
    record: Mapping[str, str] | None = None,
    metadata: str = "",
) -> tuple[WheelPin, Path]:
    """Make a wheel under a name that says nothing, as in the store.

    `record` replaces hashes in RECORD, `metadata` is more lines of METADATA.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points:
        contents[f"{info}/entry_points.txt"] = entry_points.encode()
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for path, content in contents.items():
        writer.writerow((path, (record or {}).get(path) or _record_hash(content), len(content)))
    writer.writerow((f"{info}/RECORD", "", ""))
    wheel = folder / f"{name}-{version}.object"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in [*contents.items(), (f"{info}/RECORD", rows.getvalue().encode())]:
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)  # else: the clock's
    return WheelPin(name=name, version=version, digest=Digest.of_file(wheel)), wheel


def _record_hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def laid_out(store: Store, intent: ImageIntent, wheels: Sequence[tuple[WheelPin, Path]]) -> Blob:
    """Make the layer of some wheels."""
    with wheel_entries(intent, wheels) as entries:
        return wheels_layer(store, intent, entries)
