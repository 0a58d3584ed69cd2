"""Location and download of weights: from a package, a path, the Hub, or a URL.

This module only finds files; backends read them.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InvalidInput, LicenseNotice, WeightsUnavailable, reason
from .files import replacing
from .forks import cached_property, held_off
from .specs import CodecSpec, LoadOptions, WeightSource, is_commit

CONFIG = "config.json"
NAMES = ("model.safetensors", "pytorch_model.bin")
"""File names of weights in a folder, the safer format first."""
SUFFIXES = (".safetensors", ".bin", ".pth", ".th", ".pt", ".ckpt")
"""Suffixes of weights with other names; the only such file in a folder is used."""
LARGEST = 16 << 30
"""Largest download in bytes."""
REACHED_WITHIN = 5.0
"""Timeout of a first connection to the Hub in seconds."""
TIMEOUT = 30.0
"""Timeout of a download in seconds."""
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
    """A local file of weights, with the config of their architecture, if there is one."""

    path: Path
    config: Path | None = None
    published: bool = False
    """These are the published weights, to which the spec's licence applies."""

    @property
    def described_by(self) -> Path | None:
        """Config with the settings: the one of the file, or a `config.json` beside it."""
        beside = self.path.with_name(CONFIG)
        return self.config or (beside if beside.is_file() else None)

    @cached_property
    def sha256(self) -> str:
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise WeightsUnavailable(f"{self.path} cannot be read: {error.strerror or error}") from error

    @property
    def label(self) -> str:
        return f"sha256:{self.sha256}"


def locate(spec: CodecSpec, options: LoadOptions) -> RandomWeights | WeightFile:
    """Find the weights for the options; see `locate_file`."""
    return locate_file(spec.sources, spec.name, options, spec.file_names)


def locate_file(
    sources: Sequence[WeightSource], name: str, options: LoadOptions, names: Sequence[str] = ()
) -> RandomWeights | WeightFile:
    """Find the weights for the options; download them if necessary.

    Published weights are taken from a local copy if there is one, otherwise from the first source that responds.

    Args:
        sources: Sources of the published weights.
        name: Model name for messages.
        options: Options with `weights`, `offline` and so on.
        names: Other file names of the weights in a folder.

    Raises:
        WeightsUnavailable: The weights do not exist, cannot be downloaded, or have another digest.
        InvalidInput: `options.weights` is invalid.
    """
    asked = options.weights
    if asked is None:
        return published(sources, name, options)
    if asked.startswith("random:"):
        if not re.fullmatch(r"random:\d{1,18}", asked):
            raise InvalidInput(f"weights are {asked!r}; expected random:SEED with an integer, such as random:0")
        return RandomWeights(int(asked.removeprefix("random:")))
    path = home(asked)
    if os.path.isdir(path):
        cached = [Path(cache).name for source in sources for cache in source.caches]
        return _in_directory(path, [*(source.file for source in sources), *cached, *names])
    if os.path.isfile(path):
        file = WeightFile(path, _config_beside(path))
        return replace(file, published=any(file.sha256.startswith(source.sha256) for source in sources if source.sha256))
    if _HUB_ID.fullmatch(asked) and not asked.startswith("."):
        if own := [source for source in sources if source.repo == asked]:
            return published(own, name, options)
        return _from_hub_repo(asked, options, names)
    raise WeightsUnavailable(f"weights {asked!r}: no such file or directory, and not a Hub id (owner/name) or random:SEED")


def at_hand(sources: Sequence[WeightSource], options: LoadOptions) -> Path | None:
    """Find published weights on this machine without reading them; `None` if they would have to be downloaded."""
    for source in sources:
        for path in _places(_revised(source, options), options):
            if path.is_file():
                return path
    return None


def _revised(source: WeightSource, options: LoadOptions) -> WeightSource:
    """Return a source with the revision of the options."""
    return source.model_copy(update={"revision": options.revision}) if source.repo and options.revision else source


def check_at_hand(spec: CodecSpec, options: LoadOptions) -> None:
    """Raise `WeightsUnavailable` for a path that does not exist, and if the weights would have to be downloaded, and may not be.

    Nothing is read or downloaded.
    """
    asked = options.weights
    if asked is None:
        is_local = any(source.package for source in spec.sources)  # a backend may need no file of them
        found = is_local or at_hand(spec.sources, options) is not None or _may_download(options)
    else:
        is_on_hub = _HUB_ID.fullmatch(asked) is not None and not asked.startswith(".")
        found = os.path.exists(home(asked)) or asked.startswith("random:") or (is_on_hub and _may_download(options))
    if not found:
        locate(spec, options)


def _places(source: WeightSource, options: LoadOptions) -> list[Path]:
    """Return the paths where weights of a source are, if they are on this machine."""
    if source.package:
        return [_packaged(source)]
    if source.url:
        return [_kept(source, options), *(home(os.path.expandvars(cache)) for cache in source.caches)]
    folder = hub_cache(options) / f"models--{(source.repo or '').replace('/', '--')}"
    commit = source.revision
    if not is_commit(commit):
        try:
            commit = (folder / "refs" / commit).read_text("utf-8").strip()
        except OSError:
            return []
    return [folder / "snapshots" / commit / source.file]


def hub_cache(options: LoadOptions) -> Path:
    """Return the folder of the Hub's client for downloads, which is not imported for this."""
    if options.cache_dir:
        return home(options.cache_dir)
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    root = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return home(os.path.expandvars(own or Path(root) / "hub"))


def published(sources: Sequence[WeightSource], name: str, options: LoadOptions) -> WeightFile:
    """Find and verify the published weights of these sources.

    Safetensors are preferred to pickles.

    Args:
        name: Model name for messages.

    Raises:
        WeightsUnavailable: No source has the weights, or their digest differs.
    """
    here = options.model_copy(update={"offline": True})
    problems: list[WeightsUnavailable] = []
    for attempt in [here] if options.offline or is_offline() else [here, options]:
        problems = []
        for source in sorted(sources, key=lambda source: not _is_safe(source.file)):
            try:
                found = _trusted(source, attempt)
            except WeightsUnavailable as error:
                problems.append(error)
                continue
            if source.sha256 and not found.sha256.startswith(source.sha256):
                raise WeightsUnavailable(
                    f"{found.path} has sha256 {found.sha256}, but {name} was published with {source.sha256}. "
                    "The file was not used. Remove it to download it again"
                )
            return replace(found, published=True)
    raise WeightsUnavailable("; or: ".join(map(str, problems))) from problems[0]


def give_notice(spec: CodecSpec, id: str, found: RandomWeights | WeightFile) -> None:
    """Warn about a restrictive licence of published weights."""
    if spec.license_notice and isinstance(found, WeightFile) and found.published:
        warnings.warn(f"{id}: {spec.license_notice}", LicenseNotice, stacklevel=1)  # shown once per text


def is_offline() -> bool:
    """Tell whether the environment disables the network (`HF_HUB_OFFLINE`)."""
    with held_off():
        from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _may_download(options: LoadOptions) -> bool:
    return not options.offline and not is_offline()


def _is_safe(name: str) -> bool:
    """Tell whether a file name has the suffix of safetensors."""
    return name.endswith(".safetensors")


def _trusted(source: WeightSource, options: LoadOptions) -> WeightFile:
    """Find the file of a source; raise `WeightsUnavailable` for pickles that are neither pinned nor trusted."""
    source = _revised(source, options)
    if source.is_pinned or options.trust_pickle:
        return _from(source, options)
    if not _is_safe(source.file) and not options.offline:
        raise _untrusted(source.place)
    found = _from(source, options)
    _check_no_pickle(found.path, f"{source.place}, here as {found.path},")
    return found


def _check_no_pickle(path: Path, place: str) -> None:
    """Raise `WeightsUnavailable` if the content of a file is a pickle."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    from .pickle_machine import PICKLES  # here, because listing codecs does not need it

    if head.startswith(PICKLES) and head[8:9] != b"{":
        raise _untrusted(place)


def _untrusted(place: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{place} is a pickle that no digest or commit pins, so its publisher can replace it. If you trust the publisher, load "
        "with trust_pickle=True (--trust-pickle). On the Hub, revision= a commit of 40 digits pins it. "
        "A local file can be passed as weights"
    )


def _from(source: WeightSource, options: LoadOptions) -> WeightFile:
    if source.package:
        return _embedded(source)
    return _from_hub(source, options) if source.repo else _from_url(source, options)


@held_off()
def _packaged(source: WeightSource) -> Path:
    return Path(str(importlib.resources.files(source.package or "") / source.file))


def _embedded(source: WeightSource) -> WeightFile:
    path = _packaged(source)
    if not path.is_file():
        raise WeightsUnavailable(f"{path} is missing from the installation; reinstall the package that ships it")
    return WeightFile(path)


def _in_directory(folder: Path, names: Sequence[str]) -> WeightFile:
    config = folder / CONFIG
    for name in dict.fromkeys([*NAMES, *names]):
        if (folder / name).is_file():
            return WeightFile(folder / name, config if config.is_file() else None)
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(others) == 1:
        return WeightFile(others[0], config if config.is_file() else None)
    if others:
        raise WeightsUnavailable(
            f"{folder} has several weight files: {', '.join(path.name for path in others)}. Pass one of them"
        )
    raise WeightsUnavailable(f"{folder} holds neither {' nor '.join(dict.fromkeys([*NAMES, *names]))}")


def _config_beside(path: Path) -> Path | None:
    """Return the config beside a file with one of the Hub's standard names."""
    config = path.with_name(CONFIG)
    return config if path.name in NAMES and config.is_file() else None


def cache_folder(options: LoadOptions) -> Path:
    """Return the folder for downloads from URLs; the path below it follows the URL."""
    return home(options.cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "blazen_codec")


def home(path: str | os.PathLike[str]) -> Path:
    """Expand `~`; unlike `Path.expanduser`, do not raise for unknown users."""
    return Path(os.path.expanduser(path))


def _kept(source: WeightSource, options: LoadOptions) -> Path:
    """Return the path of a download from a URL."""
    return cache_folder(options) / (source.url or "").removeprefix("https://") / source.file


def _from_url(source: WeightSource, options: LoadOptions) -> WeightFile:
    kept, places = _kept(source, options), _places(source, options)
    for place in places:
        if place.is_file():
            return WeightFile(place)
    how = f"To install it by hand, download {source.place} and pass the file as weights, or put it at {kept}"
    if options.offline:
        raise WeightsUnavailable(f"{source.file} is in none of {', '.join(map(str, places))}. {how}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as temporary:
            with temporary.open("wb") as file:
                for piece in _fetched(source.place):
                    file.write(piece)
            came = WeightFile(temporary).sha256
            if not came.startswith(source.sha256 or ""):
                raise WeightsUnavailable(f"the file has sha256 {came}, but {source.sha256} was published; it was discarded")
    except (OSError, InvalidInput, WeightsUnavailable) as error:
        raise WeightsUnavailable(f"{source.place} could not be downloaded to {kept}: {reason(error)}. {how}") from error
    return WeightFile(kept)


def _fetched(address: str) -> Iterator[bytes]:
    """Yield the content of a URL in chunks."""
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as reply:
            wanted, came = reply.headers.get("Content-Length"), 0
            while piece := reply.read(1 << 20):
                came += len(piece)
                if came > LARGEST:
                    raise WeightsUnavailable(f"the file exceeds the limit of {LARGEST} bytes")
                yield piece
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WeightsUnavailable(reason(error)) from error
    if wanted and came != int(wanted):
        raise WeightsUnavailable(f"the download ended after {came} of {wanted} bytes")


def _from_hub(source: WeightSource, options: LoadOptions) -> WeightFile:
    repo = source.repo or ""
    path = _download(repo, source.revision, source.file, options)
    config = _download(repo, source.revision, source.config_file, options) if source.config_file else None
    return WeightFile(path, config)


def _from_hub_repo(repo: str, options: LoadOptions, names: Sequence[str]) -> WeightFile:
    """Download the weights of a repository named by the user, safetensors first, with their config if there is one."""
    revision = options.revision or "main"
    may_be_pickles = options.trust_pickle or is_commit(revision)
    problem: WeightsUnavailable | None = None
    for name in sorted(dict.fromkeys([*NAMES, *names]), key=lambda name: not _is_safe(name)):
        if not may_be_pickles and not _is_safe(name):
            raise WeightsUnavailable(f"{problem}; or: {_untrusted(f'any of {name} and others in {repo}')}") from problem
        try:
            path = _download(repo, revision, name, options)
        except WeightsUnavailable as error:
            problem = problem or error
            continue
        if not may_be_pickles:
            _check_no_pickle(path, f"{name} in {repo}")
        config = _download(repo, revision, CONFIG, options) if name in NAMES else None
        return WeightFile(path, config)
    assert problem is not None
    raise problem


def hub_problem(endpoint: str) -> str | None:
    """Return why the Hub cannot be reached, within seconds.

    Its client would try again for half a minute, and print a line each time.
    """
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=REACHED_WITHIN).close()
    except urllib.error.HTTPError:  # it answers
        return None
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        return f"{endpoint} cannot be reached: {getattr(cause, 'strerror', None) or cause}"
    return None


def _download(repo: str, revision: str, file: str, options: LoadOptions) -> Path:
    with held_off():
        from huggingface_hub import constants, hf_hub_download

    cache = options.cache_dir or constants.HF_HUB_CACHE
    is_offline = options.offline or constants.HF_HUB_OFFLINE
    problem = None if is_offline else hub_problem(constants.ENDPOINT)
    try:
        return Path(
            hf_hub_download(repo, file, revision=revision, cache_dir=cache, local_files_only=is_offline or problem is not None)
        )
    except Exception as error:  # the Hub's client raises its own errors, those of its transport, and OSError
        raise WeightsUnavailable(
            f"{file} of {repo} (revision {revision}) is not in the cache {cache} and could not be downloaded: "
            f"{problem or f'{type(error).__name__}: {reason(error)}'.rstrip('.')}. "
            f"To install it by hand, put {file} into a folder and pass the folder as weights, "
            f"or run `hf download {repo}` on a machine with a network and copy the cache"
        ) from error
