"""One quiet line for whoever set a budget: what is over it, and what prune would free. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import freed_by
from quantui.domain.caches.pruning import PruneRules, budget_used, prune
from quantui.domain.caches.words import sized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.caches.items import CacheDisk, CacheItem


def budget_hint(
    items: Mapping[str, CacheItem], rules: PruneRules, *, now: float, disks: Sequence[CacheDisk]
) -> str:
    """What is over the budget or below the room to keep free, and what `quantui cache prune` frees; "" otherwise.

    ``items``: all that is known, by path; ``rules``: those of the settings.
    """
    used = budget_used(items.values())
    over = rules.budget is not None and used > rules.budget
    low = [disk for disk in disks if disk.free_bytes < (rules.keep_free or 0)]
    if not over and not low:
        return ""
    if over:
        text = f"quantui's caches take {sized(used)} of the budget of {sized(rules.budget)}"
    else:
        least = min(low, key=lambda disk: disk.free_bytes)
        free, keep = sized(least.free_bytes), sized(rules.keep_free)
        text = f"a disk with caches of quantui's has {free} free of the {keep} to keep"
    frees = freed_by(prune(items, rules, now=now, disks=disks).items)
    if not frees:
        return f"{text}; nothing of them may go by itself: quantui cache ls"
    return f"{text}: `quantui cache prune` frees {sized(frees)}"
