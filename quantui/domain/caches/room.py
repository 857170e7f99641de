"""Room on a disk: how much is lacking for something, and what could go so that there is enough. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import freed_by
from quantui.domain.caches.freeing import Freeing
from quantui.domain.caches.regret import by_regret, touched_at
from quantui.domain.caches.words import aged, shown, sized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantui.domain.caches.items import CacheItem

_TOLD = 5
"""Things named one by one; what else could go is only counted."""
_GIB = 1024**3


@dataclass(frozen=True)
class Room:
    """The file system of ``folder``: bytes ``free`` and ``needed``, what could go, the least regretted first.

    ``complete`` False: time was up before everything was looked at.
    """

    folder: str
    free: int
    needed: int
    candidates: tuple[CacheItem, ...] = ()
    complete: bool = True

    @property
    def short(self) -> int:
        """Bytes that are lacking; 0 when there is enough."""
        return max(0, self.needed - self.free)

    @property
    def frees(self) -> int:
        """Bytes on disk that deleting all candidates gives back."""
        return freed_by(self.candidates)

    @property
    def enough(self) -> bool:
        """Whether there is enough once the candidates are gone."""
        return self.frees >= self.short


def least_regretted(
    items: Mapping[str, CacheItem], short: int, *, now: float, here: Callable[[CacheItem], bool]
) -> tuple[CacheItem, ...]:
    """Things that ``here`` is true of, in the order they are given up, until they free ``short`` bytes; none too many.

    ``items``: all that is known, by path.
    """
    if short <= 0:
        return ()
    freeing = Freeing((lambda _: True,))
    taken: list[CacheItem] = []
    for item in by_regret(items, now=now):
        if freeing.freed(0) >= short:
            break
        if item.use.on_disk and here(item):
            freeing.add(item)
            taken.append(item)
    for item in [*reversed(taken)]:
        freeing.remove(item)
        if freeing.freed(0) >= short:
            taken.remove(item)
        else:
            freeing.add(item)
    return tuple(item for item in taken if item.use.frees or item.use.claims)


def room_lines(room: Room, now: float) -> tuple[str, ...]:
    """A line for each of the first things that could go, one for the rest, and one where that is not enough."""
    lines = [f"could go: {_candidate(item, now)}" for item in room.candidates[:_TOLD]]
    rest = room.candidates[_TOLD:]
    if rest:
        lines.append(f"could go: {len(rest)} more ({sized(freed_by(rest))})")
    unseen = "" if room.complete else " (not everything was looked at: quantui cache ls)"
    if not room.candidates:
        lines.append(f"nothing that may go was found on this disk{unseen}: see quantui cache ls")
        if unseen:
            lines[-1] = "nothing that may go was found in the time there was: see quantui cache ls"
    elif not room.enough:
        lines.append(
            f"together {sized(room.frees)} of the {sized(room.short)} that are lacking{unseen}"
        )
    return tuple(lines)


def room_fix(room: Room) -> str:
    """The command that makes the room, and what it leaves alone; "" where it would delete nothing.

    Where all that may go is not enough, nobody is told to delete it: only a person knows what else may.
    """
    if not room.candidates:
        return ""
    if not room.enough:
        return (
            "What may go by itself is not enough: `quantui cache ls` shows all that takes the disk."
        )
    size = -(-room.needed // _GIB)
    return (
        f"`quantui cache prune --keep-free {size}GiB` deletes what can be had again and no profile or process uses, "
        "and shows it first."
    )


def _candidate(item: CacheItem, now: float) -> str:
    """``owner/llama (15.20 GiB, not used for 40 d)``."""
    at = touched_at(item)
    used = "last used unknown" if at is None else f"not used for {aged(max(0.0, now - at))}"
    if at is not None and now - at < 60:
        used = "used just now"
    return f"{shown(item.name)} ({sized(item.use.frees or item.use.on_disk)}, {used})"
