"""Measurements, each side by side in one run. `python -m benchmarks --help` lists them."""
