"""``quantui cache undo``: what was moved to the trash, back where it was."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from quantui.cli.cache_looking import look
from quantui.cli.cache_rm import as_path
from quantui.cli.output import print_json
from quantui.domain.caches.items import Kind
from quantui.domain.caches.naming import find
from quantui.domain.caches.words import shown
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    import argparse


def undo(args: argparse.Namespace) -> int:
    """Bring back what went last, all of it, or what is named; gives the exit code."""
    from quantui.runtime.caches.trash import last_trashed, restore

    if args.name is not None:
        trashed = {p: item for p, item in look().items.items() if item.kind is Kind.TRASH}
        things = [find(trashed, as_path(args.name)).path]
    else:
        things = [one.folder for one in last_trashed()]
    if not things:
        raise QuantuiError(
            "trash.empty",
            "There is nothing in the trash to bring back.",
            "Only what was moved there (`quantui cache rm --trash`) can be had back.",
            "`quantui cache ls kind=trash` shows what is there.",
            ExitCode.NOT_FOUND,
        )
    back: list[str] = []
    stayed: list[QuantuiError] = []
    for thing in things:
        try:
            back.append(str(restore(thing)))
        except QuantuiError as error:
            stayed.append(error)
            continue
        if not args.json:
            sys.stdout.write(f"✓ {shown(back[-1])} is back\n")
            sys.stdout.flush()
    if args.json:
        print_json(
            {
                "restored": [shown(path) for path in back],
                "failed": [one.to_dict() for one in stayed],
            }
        )
    if stayed and not args.json:
        from quantui.cli.output import print_error

        for one in stayed:
            print_error(one)
    return stayed[0].exit_code if stayed else ExitCode.OK
