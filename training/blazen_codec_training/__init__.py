"""Training of codecs: fine-tuning on recordings, and the embedded models from a seed."""
