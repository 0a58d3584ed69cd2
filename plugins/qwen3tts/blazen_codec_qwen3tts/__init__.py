"""Qwen3-TTS-Tokenizer-12Hz for blazen-codec. Use it through `blazen_codec_core.load`."""
