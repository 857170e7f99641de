"""Which things quantui deletes at all: each kind in the places where it finds such things, and nowhere else.

Some known roots are wide: the folder around a compiler's cache may be ``/tmp``. Lying below a root is not enough.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime import paths
from quantui.runtime.caches.tree_items import TRASH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from quantui.runtime.caches.places import Place

_CRASH, _TEXT = "crash-", ".txt"


def refuse_misplaced(kind: Kind, place: Place) -> None:
    """Raise ``cache.outside`` (exit code 2) where a thing of ``kind`` is none that quantui finds at ``place``."""
    if not _is_found_there(kind, place):
        raise QuantuiError(
            "cache.outside",
            f"{place.path} is not quantui's to delete.",
            f"Nothing of the kind {kind.value} is looked for there.",
            "Look with: quantui cache ls",
            ExitCode.BAD_INPUT,
        )


def _is_found_there(kind: Kind, place: Place) -> bool:
    if not place.parts or (TRASH in place.parts and kind is not Kind.TRASH):
        return False
    if kind is Kind.TRASH:
        return len(place.parts) == 2 and place.parts[0] == TRASH
    if kind is Kind.COMPILED:
        return _is_compiled(place)
    if kind is Kind.FOLDER:
        from quantui.runtime.browsed_folders import added_folders

        return place.root in _real(added_folders())
    if kind is Kind.PACKAGES:
        from quantui.runtime.caches.roots import package_roots

        return place.root in _real(package_roots())
    directly = len(place.parts) == 1
    own = _OWN.get(kind)
    if kind is Kind.RUN and directly and place.root in _real([paths.home()]):
        return place.name.startswith(_CRASH) and place.name.endswith(_TEXT)
    if kind in {Kind.UNFINISHED, Kind.BROKEN} and _lies_beside(place):
        return True
    return directly and own is not None and place.root in _real(own())


_OWN: Mapping[Kind, Callable[[], tuple[Path, ...]]] = {
    Kind.MERGED: lambda: (paths.artifacts_dir(),),
    Kind.QUANTIZED: lambda: (paths.artifacts_dir(),),
    Kind.BROKEN: lambda: (paths.artifacts_dir(),),
    Kind.UNFINISHED: lambda: (paths.artifacts_dir(), paths.engines_dir(), paths.home() / "demo"),
    Kind.ENGINE: lambda: (paths.engines_dir(),),
    Kind.RUN: lambda: (paths.runs_dir(),),
    Kind.MEASURED: lambda: (paths.cache_dir(), paths.home() / "demo"),
}


def _is_compiled(place: Place) -> bool:
    from quantui.runtime.caches.roots import compiled_places

    for name, path in compiled_places():
        top = os.path.realpath(path)
        if place.path.startswith(f"{top}/") or (place.path == top and name != "vllm"):
            return True
    return False


def _lies_beside(place: Place) -> bool:
    """Whether a lock of the store says that it is what quantui left beside a folder of the user's."""
    from quantui.runtime.caches.beside import left_beside

    return any(
        os.path.join(os.path.realpath(left.path.parent), left.path.name) == place.path  # noqa: PTH118
        for left in left_beside()
    )


def _real(folders: Iterable[Path]) -> set[str]:
    return {os.path.realpath(folder) for folder in folders}
