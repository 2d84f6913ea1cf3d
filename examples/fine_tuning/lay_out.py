"""Lay out what a fine-tuning starts from: google-research/bert's patched source, a checkpoint, the image's ID.

In a checkout of bertir, with its virtualenv's Python: `python examples/fine_tuning/lay_out.py FOLDER`. It makes
`FOLDER/source` (modeling.py, run_classifier.py, …), `FOLDER/base` (bert_model.ckpt.*, vocab.txt, bert_config.json) and
`FOLDER/image` (the ID that a container engine has the image by, in which TensorFlow 2.15 is).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.errors import BertirError, ConfigurationError
from bertir.healing import healed
from bertir.interruption import Interrupted, interruptions
from bertir.materials import fetch_model
from bertir.model import GoogleZip, find_model, named_or_first
from bertir.pipeline import patch_source
from bertir.session import open_session
from bertir.show import error_text
from bertir.steps import import_checkpoint

if TYPE_CHECKING:
    from bertir.builder import Builder

ROOT = Path(__file__).resolve().parents[2]


def lay_out(builder: Builder, model_name: str, folder: Path) -> None:
    """Write the three into a new folder, which is there once it is complete.

    Raises:
        BertirError: one can't be had, or the folder is there already.
    """
    if folder.exists():
        raise ConfigurationError(
            f"{folder} is there already", advice="Name a new folder, or remove this one."
        )
    model = find_model(builder.models, named_or_first(builder.models, model_name))
    source = patch_source(builder, builder.pins)
    checkpoint = fetch_model(builder, model)
    if not isinstance(
        model.archive, GoogleZip
    ):  # Hugging Face's: to TensorFlow's format, with Google's names
        checkpoint = builder.run(import_checkpoint(builder, checkpoint, source.artifact)).artifact
    image = builder.load_image()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lay-out-") as scratch:
        made = Path(scratch, "made")
        for place, artifact in (("source", source.artifact), ("base", checkpoint)):
            (made / place).mkdir(parents=True)
            for name, blob in artifact.files.items():
                builder.store.copy_out(blob, made / place / name, what=name)
        (made / "image").write_text(f"{image}\n", encoding="utf-8")
        made.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--model", default="", help="a model of `invoke models` (default: its first)")
    arguments = parser.parse_args()
    try:
        with interruptions(), open_session(ROOT, os.environ).builder() as builder:
            healed(lambda: lay_out(builder, arguments.model, arguments.folder), builder.progress)
    except (BertirError, Interrupted) as error:
        told = error_text(error) if isinstance(error, BertirError) else str(error)
        print(told, file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
