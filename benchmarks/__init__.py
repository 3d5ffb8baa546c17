"""Measure Tamiz: accuracy, speed, memory and robustness, beside a peer in the same run."""
