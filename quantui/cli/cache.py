"""``quantui cache``: what takes the disk, and how to get it back safely."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from quantui.domain.caches.filters import KEYS, SORTS
from quantui.domain.caches.items import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_DESCRIPTION = """\
What takes the disk: Hub caches, merged and quantized models, engines, runs,
compile caches and the folders you added. Whatever deletes shows its plan
first and asks; --dry-run stops after the plan. Never deleted: what a running
process uses, and anything outside the places that `ls` shows.
"""

_FILTERS = (
    "filters: words that must all hold, in quotes where the shell reads > and <\n"
    + "".join(f"  {key:<8} {what}\n" for key, (_, what) in KEYS.items() if key != "kind")
    + "  kind     one kind or several, as kind=merged,quantized:\n"
    + "           hub, revision, incomplete, merged, quantized, unfinished, broken,\n"
    + "           engine, run, compiled, measured, packages, folder, trash\n"
    + "  WORD     a part of a name\n"
    + "sizes: 10GB is 10^9 bytes each, 10GiB 2^30; ages: h, d, w, m (30 days), y\n"
)

_LS_EXAMPLES = """
examples:
  quantui cache ls
  quantui cache ls 'size>10GB' 'used>30d' kind=merged --sort used
"""

_RM_EXAMPLES = """
examples:
  quantui cache rm Qwen/Qwen2.5-7B-Instruct
  quantui cache rm Qwen/Qwen2.5-7B-Instruct@1a2b3c4d --dry-run
  quantui cache rm 'kind=merged' 'used>30d' --trash
"""

_PRUNE = """\
Delete what is of no use any more: downloads that nobody goes on with, old
revisions that no branch or tag names, what was not made to the end, and what
lay in the trash for long. Where a budget or free space is asked for, here or
in the settings, more goes, the least regretted first: what was not used for
longest and is soonest had again. Never what a profile or a process uses, what
cannot be had again, or what lies in folders of yours.
"""

_PRUNE_EXAMPLES = """
examples:
  quantui cache prune --dry-run
  quantui cache prune --older-than 30d --kind merged,quantized
  quantui cache prune --keep-free 200GB --yes
"""

_ACTIONS = {
    "ls": ("quantui.cli.cache_ls", "show"),
    "rm": ("quantui.cli.cache_rm", "remove"),
    "prune": ("quantui.cli.cache_prune", "prune"),
    "verify": ("quantui.cli.cache_verify", "verify"),
    "undo": ("quantui.cli.cache_undo", "undo"),
    "budget": ("quantui.cli.cache_places", "budget"),
    "add": ("quantui.cli.cache_places", "add"),
    "forget": ("quantui.cli.cache_places", "forget"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands' arguments."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(
        name: str, line: str, *, description: str = "", epilog: str = ""
    ) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=line,
            description=description or f"{line[0].upper()}{line[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_ls(action)
    _add_rm(action)
    _add_prune(action)
    verify = action(
        "verify", "check models against their hashes, and Hub files against their etags"
    )
    verify.add_argument(
        "words",
        metavar="NAME_OR_FILTER",
        nargs="*",
        help="what to check; default: every model that has hashes",
    )
    _add_kind(verify)
    _add_json(verify, "events as JSON lines on stdout")
    undo = action("undo", "bring back what was moved to the trash last")
    undo.add_argument(
        "name", metavar="NAME", nargs="?", help="this one instead, of `ls kind=trash`"
    )
    budget = action("budget", "show or set the most that all of it may take")
    budget.add_argument("size", metavar="SIZE", nargs="?", help='as 200GB; "none" for no limit')
    add = action("add", "look in a folder too: of models, or a cache of huggingface_hub")
    forget = action("forget", "look in an added folder no more; what is in it stays")
    for sub in (add, forget):
        sub.add_argument("folder", metavar="FOLDER")
    for sub in (undo, budget, add, forget):
        _add_json(sub)


def run(args: argparse.Namespace) -> int:
    """Run the action; gives the exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # Names of any script, on a terminal of any encoding.
            reconfigure(errors="replace")
    module, name = _ACTIONS[args.action]
    return int(getattr(import_module(module), name)(args))


def _add_ls(action: Callable[..., argparse.ArgumentParser]) -> None:
    ls = action("ls", "list what takes the disk", epilog=_FILTERS + _LS_EXAMPLES)
    ls.add_argument("words", metavar="FILTER", nargs="*", help="show what matches; see below")
    _add_kind(ls)
    ls.add_argument(
        "--sort",
        metavar="ORDER",
        default="size",
        help=f"{', '.join(SORTS)}, with :asc or :desc; default: size, the largest first",
    )
    ls.add_argument("--limit", metavar="N", help="show no more than N")
    ls.add_argument("--revisions", action="store_true", help="the revisions of repositories too")
    _add_json(ls)


def _add_rm(action: Callable[..., argparse.ArgumentParser]) -> None:
    rm = action("rm", "delete things, after showing what goes", epilog=_FILTERS + _RM_EXAMPLES)
    rm.add_argument(
        "words",
        metavar="NAME_OR_FILTER",
        nargs="*",
        help="names or paths as `ls` shows them, REPOSITORY@REVISION, or filters",
    )
    rm.add_argument(
        "--filter",
        metavar="FILTER",
        action="append",
        default=[],
        dest="filters",
        help="only what matches; without a name, everything that does",
    )
    rm.add_argument(
        "--trash", action="store_true", help="move it to the trash: `undo` brings it back"
    )
    _add_doing(rm)


def _add_prune(action: Callable[..., argparse.ArgumentParser]) -> None:
    prune = action(
        "prune",
        "delete what is of no use, and what makes room",
        description=_PRUNE,
        epilog=_PRUNE_EXAMPLES,
    )
    prune.add_argument(
        "--older-than",
        metavar="AGE",
        help="also everything that can be had again and was not used for so long, as 30d",
    )
    prune.add_argument(
        "--keep-free", metavar="SIZE", help="make so much free on each disk; default: the settings'"
    )
    prune.add_argument(
        "--budget", metavar="SIZE", help="leave no more than this in all; default: the settings'"
    )
    _add_kind(prune)
    prune.add_argument(
        "--trash-older-than",
        metavar="AGE",
        help="empty what lay in the trash for so long; default: the settings' trash_days, 7d",
    )
    _add_doing(prune)


def _add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind",
        metavar="KIND",
        action="append",
        default=[],
        dest="kinds",
        help=f"only these, commas between them: {', '.join(Kind)}",
    )


def _add_doing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show the plan, do nothing")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    _add_json(parser, "events as JSON lines on stdout")


def _add_json(parser: argparse.ArgumentParser, what: str = "print JSON on stdout") -> None:
    parser.add_argument("--json", action="store_true", help=what)
