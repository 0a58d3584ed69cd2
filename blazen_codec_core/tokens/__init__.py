"""Tokens: the value class, layouts for language models, and file formats."""
