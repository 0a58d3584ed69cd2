"""Architectures: model settings read from published configs, with checks for unknown and unsupported fields."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ..errors import UnknownSettingsNotice, WeightsUnavailable

Names = Callable[[], Collection[str]]
BOOKKEEPING = frozenset(
    re.findall(
        r"\w+",
        """
    _attn_implementation _attn_implementation_autoset _auto_class _commit_hash _name_or_path add_cross_attention
    architectures attn_implementation auto_map bad_words_ids base_config_key begin_suppress_tokens bos_token_id
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder label2id length_penalty max_length
    min_length model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix problem_type pruned_heads remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 use_cache
        """,
    )
)
"""Fields that transformers writes into every config, independent of the model."""
LONGEST_HOP = 1 << 16
"""Largest hop in samples."""
MAX_WIDTH = 1 << 16
"""Most channels of a layer."""
TILE_SECONDS = 0.4
"""Tile size in seconds of models that have not been measured."""
Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]
Rates = Annotated[tuple[Annotated[int, Field(gt=1, le=1 << 12)], ...], Field(min_length=1, max_length=12)]
PART = "audio_encoder"
"""Field with the codec's config in the config of an enclosing model."""


class Architecture(BaseModel):
    """Base class of a family's settings. Fields have the publisher's names, possibly as aliases, and its defaults.

    Attributes:
        model_types: Supported values of `model_type`.
        silent: Known fields that do not affect the audio.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    model_types: ClassVar[Collection[str]] = ()
    silent: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read(cls, described: Any, origin: str, name: str, names: Names = tuple) -> Self:
        """Read the settings of a config, with the publisher's defaults for missing ones.

        Args:
            described: Names and values of the config.
            origin: Origin of the config for messages.
            name: Name of the model or family for messages.
            names: Returns the tensors' names, for settings that must be inferred from them.

        Raises:
            WeightsUnavailable: The config has another kind of model or an unsupported setting; the message says which.
        """
        if isinstance(described, Mapping) and isinstance(described.get(PART), Mapping):
            described, origin = described[PART], f"{PART} of {origin}"
        try:
            if isinstance(described, Mapping):
                described = cls.completed(cls.recognised(described), names)
                cls._check_booleans(described)
            found = cls.model_validate(described)
        except (ValidationError, ValueError) as error:
            raise WeightsUnavailable(f"{origin} is not a config for a model like {name}: {complaint(error)}") from error
        if unknown := sorted(map(str, described.keys() - cls.known_names())):
            warnings.warn(
                f"{origin} has unknown settings, which were ignored: {', '.join(unknown)}",
                UnknownSettingsNotice,
                stacklevel=1,
            )
        return found

    @classmethod
    def recognised(cls, described: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a config of this family unchanged; raise `ValueError` for others."""
        kind = described.get("model_type")
        if kind is not None and kind not in cls.model_types:
            supported = " or ".join(cls.model_types) or "none"
            raise ValueError(f"model_type is {kind!r}; expected {supported}")
        if kind is None and not described.keys() & cls.known_names() - BOOKKEEPING:
            raise ValueError("it has no known setting")
        return described

    @classmethod
    def _check_booleans(cls, described: Mapping[str, Any]) -> None:
        """Raise `ValueError` for booleans in place of numbers, which pydantic would convert to 0 or 1."""
        others = {
            name
            for name, field in cls.model_fields.items()
            if field.annotation is bool or get_origin(field.annotation) is Literal
        }
        for name, value in described.items():
            values = value if isinstance(value, list | tuple) else [value]
            if name in cls.known_names() - BOOKKEEPING - cls.silent - others and any(isinstance(v, bool) for v in values):
                raise ValueError(f"{name} is {value!r:.100}; expected a number")

    @classmethod
    def completed(cls, described: Mapping[str, Any], names: Names) -> Mapping[str, Any]:
        """Return a config with settings inferred from the tensors' names."""
        return described

    @classmethod
    def known_names(cls) -> frozenset[str]:
        """Return all known field names."""
        names = set(cls.model_fields) | cls.silent | BOOKKEEPING
        for field in cls.model_fields.values():
            alias = field.validation_alias
            names |= {a for a in alias.choices if isinstance(a, str)} if isinstance(alias, AliasChoices) else set()
        return frozenset(names)

    @property
    def digest(self) -> str:
        """Hash of the settings in twelve hexadecimal digits; published defaults do not count."""
        settings = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


class ConvCodecArchitecture(Architecture):
    """Settings of a convolutional codec whose channels double at each of the encoder's strides, as DAC's and SNAC's do.

    Attributes:
        encoder_dim: Channels after the encoder's first convolution.
        encoder_rates: Strides of the encoder.
        latent_dim: Channels of the latent; `None` if they follow from the encoder.
        decoder_dim: Channels after the decoder's first convolution.
        decoder_rates: Strides of the decoder.
    """

    encoder_dim: Width
    encoder_rates: Rates
    latent_dim: Width | None
    decoder_dim: Width
    decoder_rates: Rates

    @property
    def encoder_channels(self) -> int:
        """Channels of the encoder's output."""
        return self.encoder_dim << len(self.encoder_rates)

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.latent_dim or self.encoder_channels

    @property
    def hop_length(self) -> int:
        """Samples of a latent frame."""
        return math.prod(self.encoder_rates)

    def check_rates(self) -> None:
        """Raise `ValueError` unless the decoder undoes the encoder, and the widths fit the numbers of rates."""
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise ValueError(f"decoder_rates {self.decoder_rates} and encoder_rates {self.encoder_rates} have different products")
        check_hop(self.hop_length, f"encoder_rates {self.encoder_rates}")
        if self.encoder_channels > MAX_WIDTH or self.decoder_dim % (1 << len(self.decoder_rates)):
            raise ValueError(
                f"encoder_dim {self.encoder_dim} or decoder_dim {self.decoder_dim} does not fit the numbers of rates"
            )

    def tile_frames(self, sample_rate: int, block_frames: int = 1) -> int:
        """Frames of a tile of about `TILE_SECONDS`, a multiple of `block_frames`."""
        blocks = round(TILE_SECONDS * sample_rate / (self.hop_length * block_frames))
        return max(1, blocks) * block_frames


def check_hop(hop_length: int, rates: str) -> None:
    """Raise `ValueError` if a hop is too large, which would exhaust memory; `rates` describes its origin for the message."""
    if hop_length > LONGEST_HOP:
        raise ValueError(f"{rates} give a frame of more than {LONGEST_HOP} samples")


def complaint(error: ValueError) -> str:
    """Describe the first error in settings: the field, its value, and what is supported."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    field, text = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    value = first["input"]
    if not field or first["type"] == "missing" or isinstance(value, Mapping):
        return f"{field}: {text}" if field else text
    return f"{field} is {value!r:.100}; {text[0].lower()}{text[1:]}"


def read_architecture(kind: type[BaseModel], described: Any, origin: str, name: str, names: Names = tuple) -> BaseModel:
    """Read the architecture of a model from a published description.

    Args:
        kind: Class whose fields have the published names, possibly as aliases.
        described: Names and values of the description.
        origin: Origin of the description for messages.
        name: Model name for messages.
        names: Returns the tensors' names, for settings that must be inferred from them.

    Raises:
        WeightsUnavailable: The description has another kind of model or an unsupported setting.
    """
    if issubclass(kind, Architecture):
        return kind.read(described, origin, name, names)
    try:
        return kind.model_validate(described)
    except ValidationError as error:
        raise WeightsUnavailable(f"{origin} is not a config for a model like {name}: {complaint(error)}") from error


def check_config(architecture: BaseModel, described: Any, origin: str, name: str, names: Names = tuple) -> None:
    """Raise `WeightsUnavailable` if a published description differs from an architecture; arguments as `read_architecture`."""
    found = read_architecture(type(architecture), described, origin, name, names)
    for field, ours, theirs in _differences(architecture, found):
        raise WeightsUnavailable(
            f"{origin} is of another model: {field} is {theirs}, but {name} has {ours}. "
            "For other settings, load with architecture='from-weights'"
        )


def _differences(one: BaseModel, other: BaseModel) -> Iterator[tuple[str, Any, Any]]:
    """Names and values of settings that differ, also of models in them."""
    for field in type(one).model_fields:
        ours, theirs = getattr(one, field), getattr(other, field)
        if isinstance(ours, BaseModel):
            yield from ((f"{field}.{inner}", *values) for inner, *values in _differences(ours, theirs))
        elif ours != theirs:
            yield field, ours, theirs
