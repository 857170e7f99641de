"""Every profile that was saved, opened or replayed on this machine: what their models need is not given up lightly.

Losing the list costs a warning: no failure here fails anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.terminal_text import one_line
from quantui.runtime.paths import home

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT = 1
_MOST = 200
_LARGEST_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class KnownProfile:
    """A profile's file. ``title`` says in a line what it does; ``seen_at``: when it was saved or used last.

    Seconds since the epoch.
    """

    path: Path
    title: str
    seen_at: float


def known_profiles() -> tuple[KnownProfile, ...]:
    """The profiles whose files are there, those used last first."""
    return tuple(one for one in _read() if _is_file(one.path))


def note_profile(path: Path, title: str) -> None:
    """Put the profile in ``path`` first in the list; files that are gone are dropped from it."""
    new = KnownProfile(path.absolute(), one_line(title)[:200], time.time())
    try:
        home().mkdir(parents=True, exist_ok=True)
        with _alone():
            others = [one for one in known_profiles() if one.path != new.path]
            _write([new, *others][:_MOST])
    except (OSError, ValueError):
        # A full disk, a folder that may not be written, a name that no file can have.
        return


def _file() -> Path:
    return home() / "profiles.json"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two runs that begin at once both get their place in the list."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(home() / "profiles.lock", flags, 0o600)
    try:
        # A file system without locks loses at most one of the two.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read() -> list[KnownProfile]:
    """What the file holds, as far as it can be read."""
    try:
        if _file().stat().st_size > _LARGEST_BYTES:
            return []
        told = json.loads(_file().read_bytes())
        listed = told["profiles"] if told["format"] == _FORMAT else []
        return [one for entry in listed[:_MOST] if (one := _known(entry)) is not None]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _known(entry: Any) -> KnownProfile | None:  # noqa: ANN401 - of a file that anybody may have written
    if not isinstance(entry, dict):
        return None
    path, title, at = entry.get("path"), entry.get("title"), entry.get("seen_at")
    if not isinstance(path, str) or not isinstance(title, str) or not path.startswith("/"):
        return None
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        return None
    return KnownProfile(Path(path), one_line(title), float(at))


def _write(profiles: list[KnownProfile]) -> None:
    told = {
        "format": _FORMAT,
        "profiles": [
            {"path": str(one.path), "title": one.title, "seen_at": one.seen_at} for one in profiles
        ],
    }
    partial = _file().with_name(f"{_file().name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(_file())
    finally:
        partial.unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
