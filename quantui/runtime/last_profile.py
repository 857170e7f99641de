"""The profile that was saved or opened last, so that the wizard can offer it first.

Losing it costs a convenience: no failure here fails anything.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from quantui.domain.terminal_text import one_line
from quantui.runtime.known_profiles import note_profile
from quantui.runtime.paths import home

_FORMAT = 1
_LONGEST_BYTES = 64 * 1024


@dataclass(frozen=True)
class LastProfile:
    """``title`` says in a line what it does; ``saved_at``: when it was remembered, seconds since the epoch."""

    path: Path
    title: str
    saved_at: float


def last_profile_file() -> Path:
    """Where it is remembered."""
    return home() / "last-profile.json"


def remember_profile(path: Path, title: str) -> None:
    """Remember the profile in ``path`` as the last one, and among all that are known."""
    note_profile(path, title)
    told = {
        "format": _FORMAT,
        "path": str(path.absolute()),
        "title": one_line(title)[:200],
        "saved_at": time.time(),
    }
    file = last_profile_file()
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(file)
    except (OSError, UnicodeError):
        # A name that is no UTF-8 cannot be kept; nor can anything on a full disk.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def last_profile() -> LastProfile | None:
    """The profile remembered last; None when there is none, or its file is gone."""
    file = last_profile_file()
    try:
        if file.stat().st_size > _LONGEST_BYTES:
            return None
        told = json.loads(file.read_text(encoding="utf-8"))
        if told["format"] != _FORMAT or not isinstance(told["title"], str):
            return None
        found = LastProfile(Path(told["path"]), one_line(told["title"]), float(told["saved_at"]))
        there = found.path.is_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if there and math.isfinite(found.saved_at) else None
