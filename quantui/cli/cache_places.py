"""``quantui cache budget``, ``add`` and ``forget``: how much it all may take, and where else to look."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.cli.cache_looking import look
from quantui.cli.output import print_json
from quantui.domain.caches.pruning import budget_used
from quantui.domain.caches.words import budget_words, shown
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.quantities import data_size

if TYPE_CHECKING:
    import argparse


def budget(args: argparse.Namespace) -> int:
    """Show how far it is used; set or unset it first where a size is given."""
    from quantui.runtime.settings import change_setting, read_settings, settings_file

    if args.size is not None:
        none = args.size.strip().lower() == "none"
        if not none:
            data_size("budget", args.size)
        change_setting("cache.budget", None if none else args.size.strip())
    limit = read_settings().cache.budget
    used = budget_used(look().items.values())
    if args.json:
        print_json({"budget_bytes": limit, "budget_used_bytes": used})
        return ExitCode.OK
    _say(f"{budget_words(used, limit)}")
    if args.size is not None:
        _say(f"kept in {shown(str(settings_file()))}")
    if limit is not None and used > limit:
        _say("`quantui cache prune` frees what is over it; --dry-run shows what would go.")
    elif limit is None and args.size is None:
        _say("Set one with: quantui cache budget 200GB")
    return ExitCode.OK


def add(args: argparse.Namespace) -> int:
    """Look in a folder from now on: as a cache of huggingface_hub where it is one, else for models."""
    from quantui.runtime.browsed_folders import add_folder
    from quantui.runtime.settings import change_setting, read_settings

    path = _folder(args.folder)
    is_hub = _is_hub_cache(path)
    if is_hub:
        kept = read_settings().cache.hub_roots
        if path not in _whole(kept):
            change_setting("cache.hub_roots", [*kept, path])
    else:
        path = str(add_folder(path))
    what = "a cache of huggingface_hub" if is_hub else "a folder of models"
    if args.json:
        print_json({"folder": shown(path), "hub_cache": is_hub})
    else:
        _say(f"{shown(path)} is looked into as {what}.")
    return ExitCode.OK


def forget(args: argparse.Namespace) -> int:
    """Look there no more; nothing in it is touched. Exit code 5 where it was not added."""
    from quantui.runtime.browsed_folders import added_folders, remove_folder
    from quantui.runtime.settings import change_setting, read_settings

    path = _folder(args.folder)
    added = {os.path.abspath(folder): folder for folder in added_folders()}  # noqa: PTH100
    roots = read_settings().cache.hub_roots
    if path in added:
        remove_folder(added[path])
    elif path in _whole(roots):
        left = [one for one in roots if _folder(one) != path]
        change_setting("cache.hub_roots", left or None)
    else:
        known = [*map(str, added), *roots]
        raise QuantuiError(
            "folders.not-added",
            f"{shown(path)} was not added.",
            fix=f"Added are: {', '.join(map(shown, known))}" if known else "No folder was added.",
            exit_code=ExitCode.NOT_FOUND,
        )
    if args.json:
        print_json({"folder": shown(path)})
    else:
        _say(f"{shown(path)} is looked into no more; what is in it stays.")
    return ExitCode.OK


def _folder(text: str) -> str:
    """The whole path that was meant."""
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111


def _whole(roots: tuple[str, ...]) -> set[str]:
    return {_folder(one) for one in roots}


def _is_hub_cache(path: str) -> bool:
    """Whether it holds folders of repositories as huggingface_hub names them."""
    try:
        return any(
            entry.name.startswith(("models--", "datasets--", "spaces--")) and entry.is_dir()
            for entry in Path(path).iterdir()
        )
    except (OSError, ValueError):
        return False


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
