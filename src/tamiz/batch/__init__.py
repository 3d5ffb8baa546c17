"""Batch prediction: a pure function over record batches, and files in and out."""

from tamiz.batch.files import predict_file
from tamiz.batch.transform import predict_batch

__all__ = ["predict_batch", "predict_file"]
