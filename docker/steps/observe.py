"""Say what a step sees around it: `observe.py REPORT.json`. `invoke check` must see that it varied what it says.

Runs inside the container, under the same surroundings as every step of the rebuild.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    observed = {
        "clock": time.gmtime().tm_year,
        "cpus": len(os.sched_getaffinity(0)),
        "hash": hash("bertir"),
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "locale": os.environ.get("LC_ALL"),
        "name": socket.gethostname(),
        "noise": os.environ.get("NOISE"),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "zone": time.strftime("%z", time.localtime(0)),
    }
    [report] = arguments
    Path(report).write_text(json.dumps(observed, sort_keys=True), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
