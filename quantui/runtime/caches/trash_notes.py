"""What a trash says of what lies in it: ``<root>/.quantui-trash/<token>/what.json`` beside ``it``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import Kind
from quantui.runtime.caches.tree_items import TRASH

if TYPE_CHECKING:
    from collections.abc import Iterator

WHAT = "what.json"
IT = "it"
FORMAT = 1
_LARGEST = 65536


@dataclass(frozen=True)
class Trashed:
    """A thing in the trash. ``folder``: its token's folder, its identity. ``path``: where it was (untrusted).

    ``at``: when it was moved, seconds since the epoch. ``batch`` is the same for what went together. ``half``: its
    deletion has begun, so that it may lack parts and does not come back.
    """

    folder: str
    root: str
    path: str
    kind: Kind
    name: str
    at: float
    batch: str
    half: bool


def trashed_in(root: str | os.PathLike[str]) -> Iterator[Trashed]:
    """What lies in the trash of a root, the oldest first; what says nothing of itself is half deleted."""
    trash = os.path.join(os.path.realpath(root), TRASH)  # noqa: PTH118 - paths are text here
    try:
        with os.scandir(trash) as entries:
            tokens = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for token in tokens:
        found = read_trashed(os.path.join(trash, token))  # noqa: PTH118
        if found is not None:
            yield found


def read_trashed(folder: str) -> Trashed | None:
    """What a token's folder says; None where there is nothing in it: a move that did not come to pass."""
    try:
        names = set(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return None
    if not names - {WHAT, f"{WHAT}.partial"}:
        return None
    what = read_note(folder)
    token = os.path.basename(folder)  # noqa: PTH119
    root = os.path.dirname(os.path.dirname(folder))  # noqa: PTH120
    path = what.get("path")
    whole = isinstance(path, str) and names == {WHAT, IT} and what.get("deleting") is False
    try:
        kind = Kind(what.get("kind", ""))
    except ValueError:
        kind, whole = Kind.TRASH, False
    at = what.get("at")
    return Trashed(
        folder=folder,
        root=root,
        path=path if isinstance(path, str) else "",
        kind=kind,
        name=str(what.get("name") or token),
        at=float(at) if isinstance(at, int | float) else _made(folder),
        batch=str(what.get("batch") or token),
        half=not whole,
    )


def write_note(descriptor: int, what: dict[str, Any]) -> None:
    """Write ``what.json`` whole, on the disk before it has its name."""
    partial = f"{WHAT}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600, dir_fd=descriptor), "w") as out:
        json.dump(what, out)
        out.flush()
        os.fsync(out.fileno())
    os.rename(partial, WHAT, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    os.fsync(descriptor)


def read_note(folder: str) -> dict[str, Any]:
    """``what.json``; {} where it cannot be read."""
    path = os.path.join(folder, WHAT)  # noqa: PTH118
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            what = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return what if isinstance(what, dict) and what.get("format") == FORMAT else {}


def _made(folder: str) -> float:
    try:
        return os.stat(folder).st_mtime  # noqa: PTH116
    except OSError:
        return 0.0
