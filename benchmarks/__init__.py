"""Benchmarks, which interleave what they compare. `python -m benchmarks --help` lists them."""
