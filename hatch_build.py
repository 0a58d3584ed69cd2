"""Metadata of core: the README with links that lead somewhere from an index, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

SOURCE = "https://github.com/blazen-codec/blazen-codec/blob/main/"
PICTURES = "https://raw.githubusercontent.com/blazen-codec/blazen-codec/main/"


class AbsoluteLinks(MetadataHookInterface):
    """Relative links of the README, which readers of a checkout can follow, as addresses."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{PICTURES}", text)
        text = re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{SOURCE}", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
