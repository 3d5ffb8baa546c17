"""Pretrained text encoders: where their weights come from, their form for serving, and running them.

Nothing here imports PyTorch when a model is served.
"""
