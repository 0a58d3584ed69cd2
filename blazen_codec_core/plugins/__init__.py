"""Plugins: hooks, discovery, and the registry that names are looked up in."""
