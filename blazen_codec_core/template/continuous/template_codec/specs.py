"""Specs of the models. Listing codecs imports this module, so it must not import torch."""

from blazen_codec_core import CodecSpec, DeviceCapabilities, WeightSource

RATES = (10, 16)

SPECS = (
    CodecSpec(
        api_version=1,
        name="template_16khz",
        family="template",
        description="A small VAE at 16 kHz, with latents of 8 channels at 100 Hz",
        backend="template_codec.backend:TemplateBackend",
        default=True,
        sample_rate=16_000,
        hop_length=160,
        latent_channels=8,  # without strides and codebook_size: there are no tokens
        block_frames=1,
        tile_frames=50,
        weights=WeightSource(package="template_codec", file="weights.safetensors"),
        license="MIT",
        capabilities=DeviceCapabilities(devices=("cuda", "mps", "cpu")),
    ),
)
