"""Byte-pair encoding of tokens, by Hugging Face's `tokenizers` (extra `bpe`).

Each code becomes one character, and a tokenizer merges characters that often follow each other (Shen et al. 2024, "Acoustic BPE
for speech generation with discrete tokens"). Characters are those of https://github.com/AbrahamSanders/codec-bpe: frame
by frame, codebook `k` from `offset + k * codebook_size` on. Codebooks of several rates are interleaved as in `TableLayout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptFile, InvalidInput, InvalidTokens, reason
from ..files import contents, replacing
from ..installation import missing
from ..validation import check_count
from .flat import integers
from .layouts import Errors, TableLayout
from .layouts.base import Ids
from .tokens import CodecTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ..specs import CodecSpec

OFFSET, OFFSET_ABOVE_SURROGATES = 0x4E00, 0xE000
"""First character, and that of alphabets which would reach the surrogates."""
SURROGATES = range(0xD800, 0xE000)
"""Code points that are no characters."""
LAST = 0x10FFFF
TRAINING_CHARACTERS = 1024
"""Longest text that training sees at once, because it takes a time that grows with the length of texts."""


@dataclass(frozen=True)
class Compression:
    """Size of tokens before and after merging.

    Attributes:
        codes: Number of codes.
        ids: Number of ids that they became.
        seconds: Duration of the audio.
    """

    codes: int
    ids: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Codes per id."""
        return self.codes / max(1, self.ids)

    @property
    def ids_per_second(self) -> float:
        return self.ids / self.seconds if self.seconds else 0.0


class CodecBpe:
    """Byte-pair encoding of a model's tokens.

    Attributes:
        spec: Model of the tokens.
        tokenizer: The `tokenizers.Tokenizer`, whose JSON other programs read.
    """

    def __init__(
        self, spec: CodecSpec, tokenizer: Tokenizer, *, num_codebooks: int | None = None, offset: int | None = None
    ) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._layout, self._num_codebooks = alphabet_layout(spec, num_codebooks, offset), num_codebooks
        known = tokenizer.get_vocab()
        missing = [char for char in alphabet(self._layout, spec, num_codebooks) if char not in known]
        if missing:
            raise InvalidInput(
                f"the tokenizer lacks {len(missing)} characters of {spec.name}, the first of which is U+{ord(missing[0]):04X}. "
                "Was it made for other codebooks, or with another offset?"
            )

    @classmethod
    def train(
        cls,
        spec: CodecSpec,
        recordings: Iterable[CodecTokens],
        *,
        vocab_size: int,
        num_codebooks: int | None = None,
        min_frequency: int = 2,
        max_groups: int | None = None,
        special_tokens: Sequence[str] = (),
        offset: int | None = None,
    ) -> CodecBpe:
        """Train a tokenizer; every code stays an id of its own, so all tokens can be encoded.

        Args:
            spec: Model of the tokens.
            recordings: Tokens, each of one stream.
            vocab_size: Number of ids, with one per code and those of special tokens.
            num_codebooks: Number of codebooks of the tokens, the model's default if not given.
            min_frequency: Least number of times that a merged pair occurs.
            max_groups: Most groups of frames in an id.
            special_tokens: Texts of further ids, such as `<pad>`, which come first.
            offset: First character; 0x4E00, or 0xE000 for large alphabets, if not given.

        Raises:
            EngineNotAvailable: `tokenizers` is not installed.
            InvalidInput: `vocab_size` is too small for the codes, or an option is invalid.
            InvalidTokens: Tokens have several streams, or another model or number of codebooks.
        """
        tokenizers = import_tokenizers()
        layout = alphabet_layout(spec, num_codebooks, offset)
        characters = alphabet(layout, spec, num_codebooks)
        least = len(characters) + len(special_tokens)
        check_count("min_frequency", min_frequency, 1, InvalidInput)
        if check_count("vocab_size", vocab_size, 1, InvalidInput) < least:
            raise InvalidInput(f"vocab_size is {vocab_size}; {spec.name} has {least} codes and special tokens alone")
        group = layout.vocabulary(spec, num_codebooks=num_codebooks).ids_per_group
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.decoder = tokenizers.decoders.Fuse()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(special_tokens),
            initial_alphabet=characters,
            limit_alphabet=len(characters),
            max_token_length=None if max_groups is None else check_count("max_groups", max_groups, 1, InvalidInput) * group,
            show_progress=False,
        )
        count = spec.codebooks_for(num_codebooks=num_codebooks)
        texts = (to_text(layout, checked(tokens, spec, count)) for tokens in recordings)
        tokenizer.train_from_iterator(parts_of(texts, max(1, TRAINING_CHARACTERS // group) * group), trainer)
        return cls(spec, tokenizer, num_codebooks=num_codebooks, offset=offset)

    def encode(self, tokens: CodecTokens) -> Ids:
        """Convert tokens of one stream to ids of the tokenizer, int64 `(count,)`.

        Raises:
            InvalidTokens: The tokens have several streams, or another model or number of codebooks.
        """
        count = self.spec.codebooks_for(num_codebooks=self._num_codebooks)
        text = to_text(self._layout, checked(tokens, self.spec, count))
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, ids: Any, *, errors: Errors = "raise") -> CodecTokens:
        """Convert ids to tokens; special tokens are skipped.

        Args:
            ids: Ids of the tokenizer, `(count,)`.
            errors: `raise`, `drop` or `repeat`, for groups that are wrong, as of `TokenLayout.reader`.

        Raises:
            InvalidTokens: An id does not exist, or a group is wrong and `errors` is `raise`.
        """
        array, size = integers(ids, "ids"), self.tokenizer.get_vocab_size()
        if array.size and (array.min() < 0 or array.max() >= size):
            raise InvalidTokens(f"ids reach from {array.min()} to {array.max()}; the tokenizer has 0 … {size - 1}")
        text = self.tokenizer.decode(array.tolist(), skip_special_tokens=True)
        reader = self._layout.reader(self.spec, num_codebooks=self._num_codebooks, errors=errors)
        return CodecTokens.concat([reader.push([ord(char) for char in text]), reader.finish()])

    def compression(self, recordings: Iterable[CodecTokens]) -> Compression:
        """Measure how much shorter recordings become."""
        codes, ids, seconds = 0, 0, 0.0
        for tokens in recordings:
            ids += self.encode(tokens).size
            codes += sum(code.size for code in tokens.codes)
            seconds += tokens.seconds
        return Compression(codes, ids, seconds)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the tokenizer as JSON atomically, as `tokenizers.Tokenizer.from_file` reads it."""
        with replacing(path) as temporary:
            temporary.write_text(self.tokenizer.to_str(), "utf-8")

    @classmethod
    def open(
        cls, path: str | PathLike[str], spec: CodecSpec, *, num_codebooks: int | None = None, offset: int | None = None
    ) -> CodecBpe:
        """Read a tokenizer's JSON.

        Raises:
            EngineNotAvailable: `tokenizers` is not installed.
            CorruptFile: The file is no tokenizer.
            InvalidInput: The file does not exist, or the tokenizer is of other codes.
        """
        tokenizers, data = import_tokenizers(), contents(path)
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # `tokenizers` raises plain Exception
            raise CorruptFile(f"{path} is no tokenizer: {reason(error)}") from error
        return cls(spec, tokenizer, num_codebooks=num_codebooks, offset=offset)


def import_tokenizers() -> Any:
    """Import `tokenizers`; raise `EngineNotAvailable` if it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise missing("byte-pair encoding needs the package tokenizers", "bpe") from error
    return tokenizers


def alphabet_layout(spec: CodecSpec, num_codebooks: int | None, offset: int | None) -> TableLayout:
    """Return the layout whose ids are code points."""
    count = TableLayout("bpe", "").vocabulary(spec, num_codebooks=num_codebooks).size
    if offset is None:
        offset = OFFSET if OFFSET + count <= SURROGATES.start else OFFSET_ABOVE_SURROGATES
    last = check_count("offset", offset, 1, InvalidInput) + count - 1
    if last > LAST or (offset < SURROGATES.stop and last >= SURROGATES.start):
        raise InvalidInput(
            f"the characters of {spec.name} would be U+{offset:04X} to U+{last:04X}, with code points that are no characters. "
            f"Choose another offset, such as 0x{OFFSET_ABOVE_SURROGATES:X}"
        )
    return TableLayout("bpe", "one character a code", base=offset)


def alphabet(layout: TableLayout, spec: CodecSpec, num_codebooks: int | None) -> list[str]:
    """Return the characters of all codes."""
    return [chr(id) for id in range(layout.base, layout.vocabulary(spec, num_codebooks=num_codebooks).size)]


def checked(tokens: CodecTokens, spec: CodecSpec, count: int) -> CodecTokens:
    """Return tokens; raise `InvalidTokens` if they are not of the model and number of codebooks."""
    if not isinstance(tokens, CodecTokens) or (tokens.codec, tokens.num_codebooks) != (spec.identity, count):
        raise InvalidTokens(f"tokens are {tokens!r}; expected those of {spec.identity} with {count} codebooks")
    return tokens


def to_text(layout: TableLayout, tokens: CodecTokens) -> str:
    """Return one character per code."""
    return layout.pack(tokens).astype("<u4").tobytes().decode("utf-32-le")


def parts_of(texts: Iterable[str], length: int) -> Iterator[str]:
    """Yield texts in parts of at most `length` characters."""
    for text in texts:
        for start in range(0, len(text), length):
            yield text[start : start + length]
