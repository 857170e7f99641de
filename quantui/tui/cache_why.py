"""Why the bytes of a thing are what they are: each figure with its formula, and who holds what is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.words import ago, joined, rebuilt, shown, sized
from quantui.domain.explained_row import Row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.caches.items import CacheItem

_MOST_NAMED = 6
_STAT = "lstat of every file, st_blocks x 512 (stat(2)): what du counts; holes take none"


def why_rows(item: CacheItem, everything: Mapping[str, CacheItem], now: float) -> list[Row]:
    """Bytes, sharers, times and origin of ``item``; ``everything``: all that is known, by path."""
    use = item.use
    rows = [
        Row("on disk", sized(use.on_disk), "held alone + shared, each inode once", _STAT),
        Row(
            "length of its files",
            sized(use.apparent),
            "sum of st_size, each inode once; more than on disk where files have holes",
            "as `hf cache ls` and `du --apparent-size` count",
        ),
        Row("held alone", sized(use.alone), "files without another name outside it", _STAT),
        Row(
            "frees",
            sized(use.frees),
            "held alone + what is shared only within what goes",
            f"{len(use.claims):,} shared files or blobs were looked at",
        ),
    ]
    if use.shared:
        rows.append(Row("stays", sized(use.shared), "on disk - frees", _sharers(item, everything)))
    rows.append(Row("files", f"{item.files:,}", "", ""))
    rows.append(
        Row(
            "used",
            ago(item.used_at, now),
            "the newest reading or writing of a file in it",
            "st_atime and st_mtime; a file system mounted with relatime keeps the first of a day",
        )
    )
    if item.made_at is not None:
        rows.append(Row("made", ago(item.made_at, now), "", "its record, or the file system"))
    if item.made_from:
        rows.append(Row("made from", " + ".join(shown(one) for one in item.made_from), "", ""))
    rows.append(Row("to have it again", rebuilt(item.rebuild), "", ""))
    for use_now in item.users:
        rows.append(Row("in use", f"{use_now.name} (process {use_now.pid})", use_now.how, "/proc"))
    for profile in item.profiles:
        rows.append(Row("profile", shown(profile), "", ""))
    rows.append(Row("path", shown(item.path), "", ""))
    return rows


def _sharers(item: CacheItem, everything: Mapping[str, CacheItem]) -> str:
    """Who holds what would stay, as far as it is known."""
    held = {claim.key for claim in item.use.claims if claim.here < claim.needed}
    names = [
        shown(other.name)
        for other in everything.values()
        if other.path not in (item.path, item.parent)
        and other.parent != item.path
        and any(claim.key in held for claim in other.use.claims)
    ]
    if not names:
        return "held by something that is not in this list, as a hard link or a copy that shares blocks"
    more = len(names) - _MOST_NAMED
    named = names[:_MOST_NAMED] + ([f"{more} more"] if more > 0 else [])
    return f"held by {joined(named)} too"
