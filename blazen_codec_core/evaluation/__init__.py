"""Measures of quality over recordings."""
