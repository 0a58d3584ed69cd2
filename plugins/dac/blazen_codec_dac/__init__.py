"""DAC for blazen-codec. Everything is reached through `blazen_codec_core.load`."""
