"""A plugin in one file: mu-law bytes as tokens. Not neural, but it holds the trait without any PyTorch."""

import blazen_codec_core as bc

SPEC = bc.CodecSpec(
    api_version=1,
    name="fake_8khz",
    family="fake",
    description="Mu-law bytes",
    backend="fake_codec.backend:MuLaw",
    default=True,
    sample_rate=8000,
    hop_length=1,
    strides=(1,),
    codebook_size=256,
    block_frames=1,
    tile_frames=1024,
    capabilities=bc.DeviceCapabilities(batches=False),
    weights=bc.WeightSource(package="fake_codec", file="none"),
    license="MIT",
)


@bc.hookimpl
def blazen_codec_specs():
    return [SPEC]
