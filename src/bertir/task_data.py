"""The rows that run_classifier.py reads before it freezes: MRPC's format, bertir's own sentences."""

from __future__ import annotations

_HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
# The frozen graph doesn't depend on them; run_classifier.py only wants a dev.tsv with rows of both labels.
_ROWS = (
    ("1", "1", "2", "The cat sat on the mat.", "On the mat sat the cat."),
    ("0", "3", "4", "The cat sat on the mat.", "The shares closed four percent lower."),
)


def mrpc_dev_tsv() -> bytes:
    """Give a dev.tsv as run_classifier.py's MrpcProcessor reads it: tab-separated, a header, no quoting."""
    return "".join("\t".join(row) + "\n" for row in (_HEADER, *_ROWS)).encode()
