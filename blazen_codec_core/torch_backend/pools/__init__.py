"""Pools of PyTorch codecs, whose streams run as batches."""
