"""Runs in the container: a classifier's IR on the rows that run_classifier.py has encoded.

probabilities.py MODEL_XML TF_RECORD OUTPUT: OUTPUT gets a JSON list of the rows' probabilities.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import tensorflow.compat.v1 as tf

PORTS = {
    "IteratorGetNext:0": "input_ids",
    "IteratorGetNext:1": "input_mask",
    "IteratorGetNext:4": "segment_ids",
}


def main(model: str, record: str, output: str) -> None:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = []
    for data in tf.io.tf_record_iterator(record):
        features = tf.train.Example.FromString(data).features.feature
        row = {port: np.array([features[name].int64_list.value], np.int32) for port, name in PORTS.items()}
        found.append(compiled({port: row[port.any_name] for port in compiled.inputs})[0][0].tolist())
    Path(output).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
