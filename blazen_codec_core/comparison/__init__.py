"""Comparison of codecs side by side: audio, images and measures of the same recordings."""
