"""Runs in the container: the rows that run_classifier.py has written, and others, cut by tokenization.py.

tokenized.py SOURCE VOCAB TF_RECORD SENTENCES LENGTH OUTPUT: SENTENCES is a JSON list; OUTPUT gets a JSON list of rows, those of the
record first; of each row ids, mask and segments.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorflow.compat.v1 as tf

from rows import encode, load_tokenizer

COLUMNS = ("input_ids", "input_mask", "segment_ids")


def main(*arguments: str) -> None:
    source, vocab, record, sentences, length, output = arguments
    found = []
    for data in tf.io.tf_record_iterator(record):
        features = tf.train.Example.FromString(data).features.feature
        found.append([list(features[name].int64_list.value) for name in COLUMNS])
    tokenizer = load_tokenizer(Path(source), Path(vocab), lower_case=True)
    for sentence in json.loads(Path(sentences).read_text(encoding="utf-8")):
        row = encode(tokenizer, sentence, None, int(length))
        found.append([column.tolist() for column in row])
    Path(output).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
