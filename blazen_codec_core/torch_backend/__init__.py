"""The codec trait over a `CodecNetwork`: sessions, segments, ragged batches and CUDA graphs."""
