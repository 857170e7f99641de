"""The things in a cache of huggingface_hub, found as quickly as its folders can be listed.

huggingface_hub's ``scan_cache_dir`` gives the same sizes, all at once and after several times as long; deleting
goes through it all the same. What it does not list (damaged repositories, blobs that nothing refers to) takes room too.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, DiskUse, Kind, Rebuild, ScanProblem
from quantui.runtime.caches import hub_store
from quantui.runtime.caches.hub_holders import Ledger
from quantui.runtime.caches.hub_reading import read_repository
from quantui.runtime.caches.hub_repository import PASSED_OVER, TYPES
from quantui.runtime.caches.hub_rows import repository_items
from quantui.runtime.caches.measuring import unread
from quantui.runtime.caches.mounts import mounts
from quantui.runtime.caches.reflinks import SHARING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quantui.runtime.caches.hub_store import SharedStore

_NO_REPOSITORIES = PASSED_OVER | {".locks", "CACHEDIR.TAG", "version.txt", ".quantui-trash"}
"""What lies beside repositories and is none; version.txt is from transformers before 4.22."""


def hub_items(root: str | Path) -> Iterator[CacheItem | ScanProblem]:
    """Each repository of the cache at ``root``, then its revisions and what downloads left in it.

    An item that holds bytes together with a repository found after it is given once more at the end, when all who
    hold them are known: the later one counts. Nothing where there is no such folder.
    """
    place = os.path.realpath(root)
    try:
        names = sorted(os.listdir(place))  # noqa: PTH208 - paths are text here
    except FileNotFoundError:
        return
    except OSError as error:
        yield unread(place, error)
        return
    store = hub_store.SharedStore(place)
    mounted = mounts()
    ledger = Ledger(reflinks=mounted.kind_at(place) in SHARING)
    for name in names:
        path = f"{place}/{name}"
        if name in _NO_REPOSITORIES or (name == hub_store.FOLDER and store.there):
            continue
        if not _is_repository(name, path):
            if not os.path.lexists(path):
                continue
            yield ScanProblem(
                path,
                "It is no repository of the Hub.",
                "quantui leaves it alone; delete it yourself if you do not know it.",
            )
            continue
        try:
            repo = read_repository(path, store, mounted)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield unread(path, error)
            continue
        yield from repository_items(repo, place, ledger)
        yield from repo.problems
        if repo.damage:
            yield ScanProblem(
                path,
                f"The repository is damaged: {repo.damage}.",
                "Delete it: it is downloaded again when it is needed.",
            )
    yield from ledger.corrections()
    yield from _strays(place, store, ledger)


def _is_repository(name: str, path: str) -> bool:
    kind, dashes, _ = name.partition("--")
    return bool(dashes) and kind in TYPES and os.path.isdir(path)  # noqa: PTH112


def _strays(root: str, store: SharedStore, ledger: Ledger) -> Iterator[CacheItem]:
    """Shared blobs that no repository refers to any more."""
    for payload in store.payloads():
        if payload.links or ledger.knows(payload.key):
            continue
        status = _status(payload.path)
        if status is None:
            continue
        what = f"shared blob {payload.path.rpartition('/')[2][:12]} that nothing refers to"
        yield CacheItem(
            Kind.INCOMPLETE,
            what,
            payload.path,
            root,
            DiskUse(payload.size, payload.allocated),
            what,
            used_at=max(status.st_atime, status.st_mtime),
            made_at=status.st_mtime,
            rebuild=Rebuild("download what needs it again", download=payload.size),
            keep=""
            if payload.links is not None
            else "its list of references is missing: huggingface_hub cannot tell whether it is used",
            files=1,
        )


def _status(path: str) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
