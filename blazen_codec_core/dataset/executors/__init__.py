"""Executors that run jobs: local processes, and a Ray cluster."""
