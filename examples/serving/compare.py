"""Hold a running service against run_classifier.py: `python compare.py URL ROWS RESULTS`.

URL is the model's, ROWS a dev.tsv in CoLA's format (source, label, mark, sentence), RESULTS the test_results.tsv that
`run_classifier.py --do_predict=true` wrote of the same sentences. Needs Python alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

AT_ONCE = 16
ALLOWED = 1e-5  # of a probability: what the order of sums may do to an IR of fp32


def served(url: str, sentences: list[str]) -> list[list[float]]:
    given = {"name": "sentences", "shape": [len(sentences)], "datatype": "BYTES", "data": sentences}
    request = urllib.request.Request(  # noqa: S310 - the user's own
        f"{url}/infer", json.dumps({"inputs": [given]}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        [output] = json.load(response)["outputs"]
    rows, classes = output["shape"]
    return [output["data"][row * classes : (row + 1) * classes] for row in range(rows)]


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("rows", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--allowed", type=float, default=ALLOWED, help=f"difference of a probability (default: {ALLOWED:.0e})"
    )
    parser.add_argument(
        "--least-right",
        type=float,
        default=0.0,
        help="share of rows, from 0 to 1; end with 1 below it (default: 0)",
    )
    arguments = parser.parse_args()
    try:
        labels, sentences = zip(*((int(row[1]), row[3]) for row in table(arguments.rows)), strict=True)
        expected = [[float(number) for number in row] for row in table(arguments.results)]
        found: list[list[float]] = []
        for start in range(0, len(sentences), AT_ONCE):
            found += served(arguments.url, list(sentences[start : start + AT_ONCE]))
    except (OSError, ValueError, KeyError, IndexError) as error:  # urllib's errors are OSErrors
        sys.exit(f"error: {error}")
    if [len(row) for row in expected] != [len(row) for row in found]:
        sys.exit(f"error: {len(expected)} rows of results, and {len(found)} were served")
    right = sum(row.index(max(row)) == label for row, label in zip(found, labels, strict=True))
    difference = max(
        abs(one - other)
        for row, wanted in zip(found, expected, strict=True)
        for one, other in zip(row, wanted, strict=True)
    )
    print(f"rows        {len(found)}")
    print(f"right       {right}, {right / len(found):.1%}")
    print(f"difference  at most {difference:.1e} from run_classifier.py, allowed {arguments.allowed:.0e}")
    sys.exit(0 if difference <= arguments.allowed and right >= arguments.least_right * len(found) else 1)


if __name__ == "__main__":
    main()
