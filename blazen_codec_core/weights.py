"""Where the weights of a model come from: its package, a path, or the Hub. Only files are found here; reading them is the
backend's."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import InvalidInput, WeightsUnavailable, reason
from .specs import CodecSpec, LoadOptions, WeightSource

CONFIG = "config.json"
NAMES = ("model.safetensors", "pytorch_model.bin")
"""What a directory's weights may be called, the safer format first."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class RandomWeights:
    """Seeded random weights, for tests and benchmarks."""

    seed: int

    @property
    def label(self) -> str:
        return f"random:{self.seed}"


@dataclass(frozen=True)
class WeightFile:
    """Weights on this machine, and the file that describes their architecture, where there is one."""

    path: Path
    config: Path | None = None

    @cached_property
    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def label(self) -> str:
        return f"sha256:{self.sha256}"


def locate(spec: CodecSpec, options: LoadOptions) -> RandomWeights | WeightFile:
    """Finds the weights that the options ask for, downloading them if need be.

    Raises:
        WeightsUnavailable: They are not there, cannot be downloaded, or are not the file that the spec pins.
        InvalidInput: `options.weights` is none of the forms it can have.
    """
    asked = options.weights
    if asked is None:
        source = spec.weights
        found = _embedded(source) if source.package else _from_hub(source, options)
        if source.sha256 and found.sha256 != source.sha256:
            raise WeightsUnavailable(
                f"{found.path} has sha256 {found.sha256}, but {spec.name} was published with {source.sha256}. "
                "The file was not used: remove it and let it be downloaded again"
            )
        return found
    if asked.startswith("random:"):
        if not re.fullmatch(r"random:\d{1,18}", asked):
            raise InvalidInput(f"weights {asked!r}: write random:SEED with a whole number, such as random:0")
        return RandomWeights(int(asked.removeprefix("random:")))
    path = Path(asked).expanduser()
    if path.is_dir():
        return _in_directory(path)
    if path.is_file():
        return WeightFile(path)
    if _HUB_ID.fullmatch(asked) and not asked.startswith("."):
        return _from_hub_repo(asked, options)
    raise WeightsUnavailable(f"weights {asked!r}: no such file or directory, and not a Hub id (owner/name) or random:SEED")


def _embedded(source: WeightSource) -> WeightFile:
    path = Path(str(importlib.resources.files(source.package or "") / source.file))
    if not path.is_file():
        raise WeightsUnavailable(f"{path} is missing from the installation; reinstall the package that ships it")
    return WeightFile(path)


def _in_directory(folder: Path) -> WeightFile:
    config = folder / CONFIG
    for name in NAMES:
        if (folder / name).is_file():
            return WeightFile(folder / name, config if config.is_file() else None)
    raise WeightsUnavailable(f"{folder} holds neither {' nor '.join(NAMES)}")


def _from_hub(source: WeightSource, options: LoadOptions) -> WeightFile:
    repo, revision = source.repo or "", options.revision or source.revision
    path = _download(repo, revision, source.file, options)
    config = _download(repo, revision, source.config_file, options) if source.config_file else None
    return WeightFile(path, config)


def _from_hub_repo(repo: str, options: LoadOptions) -> WeightFile:
    """A repository that the user named: whichever weights it has, and its config."""
    problem: WeightsUnavailable | None = None
    for name in NAMES:
        try:
            path = _download(repo, options.revision or "main", name, options)
        except WeightsUnavailable as error:
            problem = error
            continue
        return WeightFile(path, _download(repo, options.revision or "main", CONFIG, options))
    assert problem is not None
    raise problem


def _download(repo: str, revision: str, file: str, options: LoadOptions) -> Path:
    from huggingface_hub import constants, hf_hub_download

    cache = options.cache_dir or constants.HF_HUB_CACHE
    try:
        return Path(
            hf_hub_download(
                repo, file, revision=revision, cache_dir=cache, local_files_only=options.offline or constants.HF_HUB_OFFLINE
            )
        )
    except Exception as error:  # the Hub's client raises its own, its transport's, and OSError
        raise WeightsUnavailable(
            f"{file} of {repo} (revision {revision}) is not in the cache {cache} and could not be downloaded: "
            f"{type(error).__name__}: {reason(error).rstrip('.')}. "
            f"To bring it by hand, put {file} into a folder and pass the folder as weights, "
            f"or run `hf download {repo}` where there is a network and copy the cache"
        ) from error
