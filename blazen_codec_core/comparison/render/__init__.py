"""Renderings of a comparison: PNG, figures, HTML and the report."""
