"""The known folders: caches of the Hub, quantui's own, what vLLM and its kin compile, uv's packages, the user's."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.runtime import paths
from quantui.runtime.browsed_folders import added_folders
from quantui.runtime.caches.beside import left_beside

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Root:
    """A folder whose content is known to be of one kind. ``name``: "hub cache", "artifacts", "compiled", ..."""

    name: str
    path: Path
    kind: Kind


def hub_roots() -> tuple[Path, ...]:
    """The caches of huggingface_hub that exist, each once and without links, the one it uses now first.

    Where the environment moved the cache, the one in the default place is still there, and takes room.
    """
    return _each_once(path for path in _hub_places() if _is_folder(path))


def known_roots() -> tuple[Root, ...]:
    """Every place that quantui looks at. Of the Hub's and the compilers' those that exist; the others in any case.

    A compiler's cache that is one thing as a whole lies in the folder around it.
    """
    found = [Root("hub cache", path, Kind.HUB) for path in hub_roots()]
    found += [
        Root("artifacts", paths.artifacts_dir(), Kind.MERGED),
        Root("engines", paths.engines_dir(), Kind.ENGINE),
        Root("runs", paths.runs_dir(), Kind.RUN),
        Root("cache", paths.cache_dir(), Kind.MEASURED),
        Root("demo", paths.home() / "demo", Kind.MEASURED),
        Root("quantui", paths.home(), Kind.RUN),
    ]
    found += [
        Root("compiled", place if name == "vllm" else place.parent, Kind.COMPILED)
        for name, place in compiled_places()
    ]
    found += [Root("packages", path, Kind.PACKAGES) for path in package_roots()]
    found += [Root("packages", path, Kind.PACKAGES) for path in xet_roots()]
    found += [Root("folders", path, Kind.FOLDER) for path in added_folders()]
    beside = dict.fromkeys(left.path.parent for left in left_beside())
    found += [Root("unfinished", path, Kind.UNFINISHED) for path in beside]
    return tuple(found)


def compiled_places() -> tuple[tuple[str, Path], ...]:
    """Folders of compiled kernels and graphs that exist, each once, and whose they are.

    These are ``vllm``, ``triton``, ``inductor``, ``extensions`` and ``flashinfer``.

    vLLM: ``VLLM_CACHE_ROOT`` (vllm/envs.py). Triton: ``TRITON_CACHE_DIR`` or ``~/.triton/cache``
    (triton/runtime/cache.py). torch: ``TORCHINDUCTOR_CACHE_DIR`` or ``torchinductor_USER`` in the folder of temporary
    files (torch/_inductor/runtime/cache_dir_utils.py), and ``TORCH_EXTENSIONS_DIR``
    (torch/utils/cpp_extension.py). FlashInfer: ``.cache/flashinfer`` in ``FLASHINFER_WORKSPACE_BASE`` or the home
    (flashinfer/jit/env.py).
    """
    cache, home = _user_cache(), Path.home()
    inductor = Path(tempfile.gettempdir()) / f"torchinductor_{_user_name()}"
    places = (
        ("vllm", _given("VLLM_CACHE_ROOT") or cache / "vllm"),
        ("triton", _given("TRITON_CACHE_DIR") or home / ".triton" / "cache"),
        ("inductor", _given("TORCHINDUCTOR_CACHE_DIR") or inductor),
        ("extensions", _given("TORCH_EXTENSIONS_DIR") or cache / "torch_extensions"),
        ("flashinfer", (_given("FLASHINFER_WORKSPACE_BASE") or home) / ".cache" / "flashinfer"),
    )
    found: dict[Path, str] = {}
    for name, path in places:
        if _is_folder(path):
            found.setdefault(Path(os.path.realpath(path)), name)
    return tuple((name, path) for path, name in found.items())


def package_roots() -> tuple[Path, ...]:
    """uv's cache of packages, where it exists: ``UV_CACHE_DIR`` or ``$XDG_CACHE_HOME/uv``."""
    return _each_once(
        path for path in (_given("UV_CACHE_DIR") or _user_cache() / "uv",) if _is_folder(path)
    )


def xet_roots() -> tuple[Path, ...]:
    """Xet's chunks, which downloads from the Hub keep beside its cache, where there are any (HF_XET_CACHE)."""
    hub_home = _given("HF_HOME") or _user_cache() / "huggingface"
    place = _given("HF_XET_CACHE") or hub_home / "xet"
    return _each_once([place] if _is_folder(place) else [])


def _hub_places() -> Iterable[Path]:
    """Where huggingface_hub keeps, or kept, its cache; the order of its constants.py.

    Importing it for three variables costs tens of milliseconds: what it read is asked only where it is loaded.
    """
    loaded = sys.modules.get("huggingface_hub.constants")
    if loaded is not None:
        yield Path(loaded.HF_HUB_CACHE)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        given = _given(name)
        if given is not None:
            yield given
    hub_home = _given("HF_HOME")
    if hub_home is not None:
        yield hub_home / "hub"
    yield _user_cache() / "huggingface" / "hub"
    yield from _set_roots()


def _set_roots() -> Iterable[Path]:
    """The caches that the settings name. A file of settings that is wrong is told by what reads it for itself."""
    if not (paths.home() / "settings.toml").exists():
        # The first rows wait for this: what reads the file takes longer to import than to look for it.
        return ()
    from quantui.domain.errors import QuantuiError
    from quantui.runtime.settings import read_settings

    try:
        named = read_settings().cache.hub_roots
    except QuantuiError:
        return ()
    return [_absolute(name) for name in named if name]


def _given(variable: str) -> Path | None:
    """The folder that a variable of the environment names, made absolute; None where it is not set, or empty."""
    value = os.environ.get(variable)
    if not value:
        return None
    return _absolute(value)


def _absolute(value: str) -> Path:
    """A folder as people write it, "~" and variables among it; unlike Path.expanduser this never raises."""
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(value))))  # noqa: PTH100, PTH111


def _user_cache() -> Path:
    return _given("XDG_CACHE_HOME") or Path.home() / ".cache"


def _user_name() -> str:
    """The user as torch names its folder: characters that names of files may not have replaced."""
    import getpass
    import re

    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _each_once(places: Iterable[Path]) -> tuple[Path, ...]:
    """The folders without links, each once."""
    return tuple(dict.fromkeys(Path(os.path.realpath(path)) for path in places))
