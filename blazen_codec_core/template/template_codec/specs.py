"""Specs of the models. Listing codecs imports this module, so it must not import torch."""

from blazen_codec_core import CodecSpec, DeviceCapabilities, WeightSource

LATENT_CHANNELS = 32
CODEBOOKS = 2

SPECS = (
    CodecSpec(
        api_version=1,
        name="template_16khz",
        family="template",
        description="Two layers and two codebooks at 16 kHz",
        backend="template_codec.backend:TemplateBackend",
        default=True,
        sample_rate=16_000,
        hop_length=160,
        strides=(1,) * CODEBOOKS,
        codebook_size=256,
        codebook_choices=(1, 2),
        block_frames=1,
        tile_frames=50,
        weights=WeightSource(package="template_codec", file="weights.safetensors"),
        license="MIT",
        capabilities=DeviceCapabilities(devices=("cuda", "mps", "cpu"), pools=("encode", "decode")),
    ),
)
