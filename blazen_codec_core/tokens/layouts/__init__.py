"""Layouts: orders in which language models read and write tokens."""

from __future__ import annotations

from .base import Errors, Ragged, TokenLayout
from .logits import LayoutLogitsProcessor
from .reader import LayoutReader
from .table import NO_CODE, TableLayout
from .text import IdText
from .vocabulary import Place, Slot, Specials, Vocabulary, slots
from .writer import LayoutWriter

__all__ = [
    "NO_CODE",
    "Errors",
    "IdText",
    "LayoutLogitsProcessor",
    "LayoutReader",
    "LayoutWriter",
    "Place",
    "Ragged",
    "Slot",
    "Specials",
    "TableLayout",
    "TokenLayout",
    "Vocabulary",
    "slots",
]
