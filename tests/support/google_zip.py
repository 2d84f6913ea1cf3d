"""Models as Google publishes them: small files in zips, and a models.toml that pins them in place of the real ones."""

from __future__ import annotations

import hashlib
import random
import tomllib
import zipfile
from typing import TYPE_CHECKING, Any

from checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def google_models() -> dict[str, dict[str, Any]]:
    """The entries of the project's own models.toml that are zips."""
    models = tomllib.loads((ROOT / "models.toml").read_text(encoding="utf-8"))
    return {name: entry for name, entry in models.items() if entry["kind"] == "google-zip"}


def small_files(name: str) -> dict[str, bytes]:
    """Five files in place of a model's own; only the vocabulary compresses."""
    seeded = random.Random(name)  # noqa: S311 - no secret
    sizes = {"bert_model.ckpt.data-00000-of-00001": 200_000, "bert_model.ckpt.index": 300}
    files = {file: seeded.randbytes(size) for file, size in sizes.items()}
    files["bert_model.ckpt.meta"] = seeded.randbytes(2_000)
    files["bert_config.json"] = b'{"hidden_size": %d}\n' % seeded.randrange(10**9)
    files["vocab.txt"] = b"".join(b"%s%d\n" % (name.encode(), number) for number in range(2_000))
    return files


def write_zip(path: Path, files: Mapping[str, bytes], folder: str = "") -> Path:
    """Write a zip with an entry for the folder, as Google's have it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if folder:
            archive.writestr(zipfile.ZipInfo(f"{folder}/", ZIP_DATE), b"")
        for name, data in files.items():
            info = zipfile.ZipInfo(f"{folder}/{name}" if folder else name, ZIP_DATE)
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def models_toml(url: str, contents: Mapping[str, Mapping[str, bytes]]) -> str:
    """The published entries with another host, and the digests of other files."""
    lines = []
    for name, files in contents.items():
        entry = google_models()[name]
        address = f"{url}/{entry['zip']['url'].partition('//')[2].partition('/')[2]}"
        lines += [
            f"[{name}]",
            f'title = "{entry["title"]}"',
            'licence = "Apache-2.0"',
            'kind = "google-zip"',
            f"lower_case = {str(entry['lower_case']).lower()}",
            *(f"{field} = {entry[field]}" for field in ("layers", "hidden", "vocabulary", "max_positions")),
            f'zip = {{ url = "{address}", folder = "{entry["zip"]["folder"]}" }}',
            f"[{name}.files]",
            *(
                f'"{file}" = {{ sha256 = "{hashlib.sha256(data).hexdigest()}" }}'
                for file, data in files.items()
            ),
        ]
    return "\n".join(lines) + "\n"
