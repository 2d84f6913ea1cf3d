"""Runs in the container: copies a checkpoint and adds variables of the given names.

checkpoint_with.py PREFIX OUTPUT_PREFIX NAME…
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow.compat.v1 as tf


def main(prefix: str, output: str, *more: str) -> None:
    reader = tf.train.load_checkpoint(prefix)
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values |= {name: np.ones((2, 128), np.float32) for name in more}
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=values[name]) for name in sorted(values)]
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, output, write_meta_graph=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
