"""Version of the interface between core and plugins."""

from __future__ import annotations

from .errors import PluginError

CORE = "blazen-codec-core"
"""Name of this distribution."""
API_VERSION = 1
"""Generation of the interface (specs, hooks, trait). It increases when plugins have to change."""


class IncompatiblePlugin(PluginError):
    """A plugin was written for another generation of the interface."""

    def __init__(self, model: str, built_for: object) -> None:
        self._model, self._built_for = model, built_for
        super().__init__(self.sentence("the plugin that offers it"))

    def sentence(self, plugin: str) -> str:
        """Describe the mismatch, and what to upgrade; `plugin` is the distribution to name."""
        newer = isinstance(self._built_for, int) and self._built_for > API_VERSION
        return (
            f"{self._model} is built for generation {self._built_for!r} of the codec interface, but this {CORE} has "
            f"generation {API_VERSION}: upgrade {CORE if newer else plugin} (pip install --upgrade)"
        )
