"""Mimi for blazen-codec. Use it through `blazen_codec_core.load`."""
