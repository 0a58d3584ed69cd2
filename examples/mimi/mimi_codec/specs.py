"""The model, as data."""

from blazen_codec_core import CodecSpec, DeviceCapabilities, WeightSource

SPEC = CodecSpec(
    api_version=1,
    name="mimi_24khz",
    family="mimi",
    description="Speech at 12.5 frames a second",
    backend="mimi_codec.backend:MimiBackend",
    default=True,
    sample_rate=24_000,
    hop_length=1920,
    strides=(1,) * 32,
    codebook_size=2048,
    codebook_choices=tuple(range(1, 33)),
    default_codebooks=8,
    block_frames=1,
    tile_frames=25,
    weights=WeightSource(
        repo="kyutai/mimi",
        revision="89091b3e466eb6a9d11e537bf26b144f194978f7",
        file="model.safetensors",
        config_file="config.json",
    ),
    license="CC BY 4.0",
    homepage="https://github.com/kyutai-labs/moshi",
    capabilities=DeviceCapabilities(devices=("cuda", "cpu"), streams=("encode",), batches=False),
)
