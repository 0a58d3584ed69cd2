"""Tokens: the value, token orders of language models, and files."""
