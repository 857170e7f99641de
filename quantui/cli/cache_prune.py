"""``quantui cache prune``: what is of no use, what is old, and more until budget and free space are met."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quantui.cli.cache_deleting import carry_out
from quantui.cli.cache_looking import kinds_of, look
from quantui.domain.caches.deletion import plan_deletion
from quantui.domain.caches.pruning import PruneRules
from quantui.domain.caches.pruning import prune as choose
from quantui.domain.quantities import age, data_size

if TYPE_CHECKING:
    import argparse

    from quantui.runtime.settings import CacheSettings

_DAY = 86400.0


def prune(args: argparse.Namespace) -> int:
    """Choose, plan, show, ask, delete; gives the exit code."""
    from quantui.runtime.settings import read_settings

    rules = _rules(args, read_settings().cache)
    found = look()
    pruned = choose(found.items, rules, now=time.time(), disks=found.disks)
    plan = plan_deletion(pruned.items, found.items)
    whys = {one.item.path: one.why for one in pruned.chosen}
    return carry_out(plan, args, whys=whys, shortfalls=pruned.shortfalls)


def _rules(args: argparse.Namespace, settings: CacheSettings) -> PruneRules:
    """The options, and the settings where there is none."""

    def size(option: str, text: str | None, otherwise: int | None) -> int | None:
        if text is None:
            return otherwise
        return None if text.strip().lower() == "none" else data_size(option, text)

    trash = args.trash_older_than
    return PruneRules(
        older_than=None if args.older_than is None else age("--older-than", args.older_than),
        budget=size("--budget", args.budget, settings.budget),
        keep_free=size("--keep-free", args.keep_free, settings.keep_free),
        kinds=kinds_of(args.kinds),
        trash_older_than=(
            settings.trash_days * _DAY if trash is None else age("--trash-older-than", trash)
        ),
    )
