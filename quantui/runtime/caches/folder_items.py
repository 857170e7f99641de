"""Models and adapters in the folders that the user added: the user's own, and nothing else makes them again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import CacheItem, Kind, Rebuild
from quantui.runtime.artifacts import RECORD
from quantui.runtime.caches.origins import (
    made_at,
    made_from_words,
    read_json,
    rebuild_of,
)
from quantui.runtime.caches.tree_items import TRASH, tree_item
from quantui.runtime.made_records import PROOF
from quantui.runtime.unproven import BROKEN_RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from quantui.domain.found import Found as FoundModel
    from quantui.runtime.caches.tree_items import Found

_LOST = Rebuild("nothing here knows how to make it again", possible=False)
_ADDED = "it is the folder that you added; what may be deleted lies in such a folder"
_HOLDS_OTHERS = "other models lie in it: choose those, or move them out first"


def folder_items(stop: Callable[[], bool], *, elsewhere: Collection[str] = ()) -> Iterator[Found]:
    """Every checkpoint and adapter below the added folders, links left out.

    ``elsewhere``: roots whose things are given by others: what lies in those is passed over.
    """
    from quantui.runtime.browse import browse_folders
    from quantui.runtime.browsed_folders import added_folders
    from quantui.runtime.caches.roots import hub_roots

    hub = hub_roots()
    others = [os.path.realpath(root) + os.sep for root in elsewhere]
    for root in dict.fromkeys(Path(os.path.realpath(folder)) for folder in added_folders()):
        found = {
            one.path: one
            for one in browse_folders([root], stop)
            if one.path is not None and _is_own(one.path, root) and not _below(one.path, others)
        }
        for path, one in found.items():
            if stop():
                return
            around = [each for each in found if path.startswith(each + os.sep)]
            holds = any(each.startswith(path + os.sep) for each in found)
            for item in tree_item(Kind.FOLDER, Path(path), root, stop=stop, **_known(one, hub)):
                if isinstance(item, CacheItem):
                    parent = max(around, key=len, default=None)
                    keep = _HOLDS_OTHERS if holds else _ADDED if path == str(root) else ""
                    yield replace(item, parent=parent, keep=keep, trashable=not keep)
                else:
                    yield item


def _known(one: FoundModel, hub: Sequence[Path]) -> dict[str, Any]:
    """What is to be said of a found checkpoint, its record if it has one included."""
    folder = Path(one.path or "")
    record = read_json(folder / RECORD) or read_json(folder / PROOF)
    known: dict[str, Any] = {"detail": _what(one), "rebuild": _LOST}
    if isinstance(record.get("made_from"), dict):
        known |= {
            "made_at": made_at(record),
            "made_from": made_from_words(record),
            "rebuild": rebuild_of(record, hub),
        }
    if (folder / BROKEN_RECORD).is_file():
        known["detail"] = f"{known['detail']}; did not pass its proof"
    return known


def _what(one: FoundModel) -> str:
    """``adapter, LORA, rank 16, of owner/base`` or ``model, llama, bfloat16``."""
    told: list[str] = [one.kind]
    if one.kind == "adapter":
        told += [one.stored] if one.stored else []
        told += [f"rank {one.rank}"] if one.rank else []
        told += [f"of {one.base}"] if one.base else []
    else:
        told += [word for word in (one.model_type, one.stored or one.dtype) if word]
    return ", ".join(told)[:300] + (f"; {one.problem}" if one.problem else "")


def _is_own(path: str, root: Path) -> bool:
    """Whether the folder itself lies there: neither a link, nor behind one, nor in the trash."""
    real = os.path.realpath(path)
    inside = real == str(root) or real.startswith(str(root) + os.sep)
    return inside and real == path and TRASH not in Path(path).parts


def _below(path: str, roots: Sequence[str]) -> bool:
    return any(f"{path}{os.sep}".startswith(root) for root in roots)
