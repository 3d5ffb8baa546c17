"""Data: sources, the lake and its three layers, the split."""
