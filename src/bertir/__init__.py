"""Reproducible builds of OpenVINO IR from TensorFlow BERT checkpoints."""

__version__ = "0.1.0"
