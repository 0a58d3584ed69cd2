"""Published weights: reading files, and converting names and layouts."""
