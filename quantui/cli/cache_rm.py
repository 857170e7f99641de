"""``quantui cache rm``: what is named, or what a filter matches, deleted or moved to the trash."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from quantui.cli.cache_deleting import carry_out
from quantui.cli.cache_looking import look
from quantui.domain.caches.deletion import plan_deletion
from quantui.domain.caches.naming import pick, told_apart
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    import argparse


def remove(args: argparse.Namespace) -> int:
    """Pick, plan, show, ask, delete; gives the exit code."""
    words = told_apart((as_path(word) for word in args.words), filters=args.filters)
    if not words.names and not words.filter.terms:
        raise QuantuiError(
            "cache.nothing-named",
            "Nothing is named to be deleted.",
            fix="Name things as `quantui cache ls` shows them, or give a filter: "
            "quantui cache rm 'kind=merged' 'used>30d'",
        )
    found = look()
    chosen = pick(found.items, words, now=time.time())
    if not chosen and not args.json:
        sys.stdout.write("Nothing matches.\n")
        return ExitCode.OK
    plan = plan_deletion(chosen, found.items, to_trash=args.trash)
    return carry_out(plan, args)


def as_path(word: str) -> str:
    """The whole path of what begins with ``/``, ``./``, ``../`` or ``~/``; any other word as it is.

    Links on the way are followed, the last part is not.
    """
    if not word.startswith(("/", "./", "../", "~/")):
        return word
    path = os.path.abspath(os.path.expanduser(word))  # noqa: PTH100, PTH111 - names need not be UTF-8
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
