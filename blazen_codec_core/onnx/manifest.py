"""The JSON beside exported graphs: the codec, its graphs, and how to drive them. It needs neither PyTorch nor ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import foreign_json
from ..errors import CorruptFile, InvalidInput, NotYetImplemented, reason
from ..files import contents
from ..specs import CodecSpec, Half

FILE, WEIGHTS, README = "export.json", "weights.bin", "README.md"
"""Files beside the graphs."""
AUDIO = "audio"
"""Input of encoders, and output of decoders."""
STATE, NEXT = "state.", "next."
"""Prefixes of the inputs and the outputs that hold the state of a stream."""
NOISE = "noise_"
"""Prefix of the inputs of noise."""
NUM_CODEBOOKS = "num_codebooks"
"""Input of decoders that also decode the first few codebooks alone, int64 `(1,)`."""
MOST_NOISE = 1 << 24
"""Most values of noise of a block."""
What = Literal["whole", "step", "both"]


def times(blocks: Any, factor: int) -> Any:
    """`blocks` times a factor; blocks that are a `torch.export.Dim` cannot be multiplied by one."""
    return blocks if factor == 1 else factor * blocks


def code_names(spec: CodecSpec) -> tuple[str, ...]:
    """Names of the inputs or outputs with the codes of each codebook."""
    return tuple(f"codes_{number}" for number in range(spec.num_codebooks))


def block_of(spec: CodecSpec, half: Half) -> dict[str, int]:
    """Size of a block of frames in the last axis of each input of a half."""
    if half == "encoder":
        return {AUDIO: spec.block_frames * spec.hop_length}
    return {name: spec.block_frames // stride for name, stride in zip(code_names(spec), spec.strides, strict=True)}


def outputs_of(spec: CodecSpec, half: Half) -> tuple[str, ...]:
    """Names of the outputs of a half."""
    return code_names(spec) if half == "encoder" else (AUDIO,)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Frozen):
    """An input or output of a graph.

    Attributes:
        shape: Numbers, and expressions for the axes that vary.
        dtype: Type of its elements, in NumPy's words.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class NoiseInput(_Frozen):
    """Input `(count,)` of standard normal noise: the next values of a layer's own sequence.

    Attributes:
        layer: Number of the layer, which is part of the generator's key.
        slope: Values for each block of the graph's input.
        offset: Values beside those.
    """

    name: str
    layer: int
    slope: Annotated[int, Field(ge=0, le=MOST_NOISE)]
    offset: Annotated[int, Field(ge=-MOST_NOISE, le=MOST_NOISE)]

    def count(self, blocks: Any) -> Any:
        """Number of values for a number of blocks."""
        values = times(blocks, self.slope)
        return values + self.offset if self.offset else values


class Graph(_Frozen):
    """One graph.

    Attributes:
        blocks: Blocks of its input, or the least number of them.
        is_dynamic: It takes any number of blocks from there on.
        noise: Inputs of noise.
        inputs: All inputs. Those of the state are in the order of the outputs of the state.
        outputs: All outputs.
    """

    file: Annotated[str, Field(pattern=r"^[a-z_]+\.onnx$")]
    blocks: Annotated[int, Field(ge=0)]
    is_dynamic: bool
    noise: tuple[NoiseInput, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class Stream(_Frozen):
    """Graphs of a signal in tiles.

    Attributes:
        latency_samples: Most samples that a stream holds back.
        begin: Graph of the first blocks.
        step: Graph of each tile that follows.
        end: Graph of the rest. A stream ends without it if there is none, or if fewer blocks than it takes are left.
    """

    latency_samples: int
    begin: Graph
    step: Graph
    end: Graph | None


class Part(_Frozen):
    """Graphs of the encoder or the decoder.

    Attributes:
        block: Size of a block in the last axis of each input, by name. A signal has whole blocks.
        block_samples: Samples of audio of a block.
        whole: Graph of a signal that is there as a whole.
        stream: Graphs of a signal in tiles.
    """

    block: dict[str, int]
    block_samples: int
    whole: Graph | None = None
    stream: Stream | None = None

    @property
    def existing_stream(self) -> Stream:
        """Graphs of a signal in tiles.

        Raises:
            NotYetImplemented: There are none.
        """
        if self.stream is None:
            raise NotYetImplemented("only graphs of whole signals were exported; export the codec with what='both' for streams")
        return self.stream

    @property
    def graphs(self) -> list[Graph]:
        """All graphs."""
        found = [self.whole, *((self.stream.begin, self.stream.step, self.stream.end) if self.stream else ())]
        return [graph for graph in found if graph]


class Manifest(_Frozen):
    """Content of the JSON.

    Attributes:
        format: Version of the layout of the folder.
        codec: Description of the model.
        label: Label of the weights, as in `CodecTokens.weights`.
        dtype: Floating type of the network; the quantizer is in float32.
        parts: Graphs of each half.
    """

    format: Literal[1] = 1
    codec: CodecSpec
    label: str
    dtype: str
    parts: dict[Half, Part]

    @model_validator(mode="after")
    def _fits_the_codec(self) -> Manifest:
        """Check that the graphs take and give what those of the codec do."""
        for half, part in self.parts.items():
            if part.block != block_of(self.codec, half) or part.block_samples != self.codec.block_frames * self.codec.hop_length:
                raise ValueError(f"the blocks of the {half} are not those of the codec")
            if part.stream and not (part.stream.begin.blocks and part.stream.step.blocks):
                raise ValueError(f"a graph of the {half} takes no input")
            wanted = set(outputs_of(self.codec, half))
            if not all(wanted <= {value.name for value in graph.outputs} for graph in part.graphs):
                raise ValueError(f"a graph of the {half} lacks an output")
        return self

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the JSON of a folder.

        Raises:
            InvalidInput: The folder has none.
            CorruptFile: It is no such JSON.
        """
        if not (folder / FILE).is_file():
            raise InvalidInput(f"{folder} has no {FILE}; name a folder that blazen-codec export has written")
        try:
            fields = foreign_json.parse_object(contents(folder / FILE))
            fields["codec"]["architecture"] = None  # typed by the plugin, which need not be installed here
            return cls.model_validate(fields)
        except (foreign_json.NotJson, ValidationError, LookupError, TypeError) as error:
            raise CorruptFile(f"{folder / FILE} is not the JSON of an export: {reason(error)}") from error
