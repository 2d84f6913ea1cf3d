"""The probabilities of one sentence: `python predict.py FOLDER SENTENCE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from classifier import Classifier, UnfitFolderError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="that `invoke build-ir --head classifier` has published")
    parser.add_argument("sentence")
    arguments = parser.parse_args()
    try:
        [row] = Classifier(arguments.folder).probabilities([arguments.sentence])
    except UnfitFolderError as error:
        sys.exit(f"error: {error}")
    for label, probability in enumerate(row):
        print(f"{label}  {probability:.4f}")


if __name__ == "__main__":
    main()
