"""Batch prediction: a pure function over record batches, and files in and out."""

from tamiz.batch.files import predict_file, read_columns, read_texts
from tamiz.batch.requests import answer_lines, answer_request_file
from tamiz.batch.transform import predict_batch

__all__ = ["answer_lines", "answer_request_file", "predict_batch", "predict_file", "read_columns", "read_texts"]
