"""Runs in the container: copies a checkpoint without the variables whose names hold a given text.

checkpoint_without.py PREFIX TEXT OUTPUT_PREFIX
"""

from __future__ import annotations

import sys

import tensorflow.compat.v1 as tf


def main(prefix: str, text: str, output: str) -> None:
    reader = tf.train.load_checkpoint(prefix)
    names = [name for name in sorted(reader.get_variable_to_shape_map()) if text not in name]
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=reader.get_tensor(name)) for name in names]
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
