"""Codecs side by side: what each makes of a recording, to hear, to see and in numbers."""
