"""What has to hold right before a thing goes: nobody makes it, uses it, or has changed it since it was looked at."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime import engine_store, paths
from quantui.runtime.artifacts import noted_inputs
from quantui.runtime.unfinished import OUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantui.domain.caches.items import ProcessUse
    from quantui.runtime.caches.measuring import Tree
    from quantui.runtime.caches.places import Place

_OF_STORE = re.compile(r"(?:\.staged(?:[.-].*)?|\.broken|\.partial|\.unproven)+$", re.DOTALL)
"""What follows an artifact's name, or a folder's, while it is made or when it failed (artifacts.py, unproven.py)."""

_OF_ENGINE = re.compile(r"\.(?:partial|old)-.*$", re.DOTALL)
"""What follows an engine's name while it is installed or removed (engine_store.py)."""

_MADE = {Kind.MERGED, Kind.QUANTIZED, Kind.UNFINISHED, Kind.BROKEN, Kind.FOLDER}


@contextlib.contextmanager
def guarded(kind: Kind, place: Place) -> Iterator[None]:
    """Hold the locks of those who could be making a thing of ``kind`` at ``place``; never waits.

    Raises ``cache.being-made``, ``engine.busy`` and ``cache.run-lives`` (exit codes 3 and 4).
    """
    with contextlib.ExitStack() as held:
        if place.root == os.path.realpath(paths.engines_dir()):
            held.enter_context(engine_store.exclusive(_OF_ENGINE.sub("", place.parts[0])))
        elif kind in _MADE:
            for lock in _maker_locks(place):
                held.enter_context(not_waiting(lock, place.path))
        elif kind is Kind.PACKAGES:
            lock = Path(place.root, ".lock")
            if lock.is_file():
                # uv holds it, shared, while it installs; `uv cache clean` exclusively.
                held.enter_context(not_waiting(lock, place.path))
        elif kind is Kind.RUN:
            _refuse_living(place)
        yield


@contextlib.contextmanager
def not_waiting(lock: Path, path: str) -> Iterator[None]:
    """Hold a lock file; raises ``cache.being-made`` where somebody else does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(lock, flags, 0o600)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        # A full disk has no room for a lock that is not there, and for nobody who would make something.
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QuantuiError(
                "cache.being-made",
                "in use: it is being made or written by another run",
                f"{lock} is held.",
                f"Wait for the end of that run, then delete {path} again.",
                ExitCode.DOES_NOT_FIT,
            ) from None
        yield
    finally:
        os.close(descriptor)


def refuse_used(users: Sequence[ProcessUse]) -> None:
    """Raise ``cache.in-use``, naming the first of ``users``, where there are any."""
    if not users:
        return
    first = users[0]
    more = len({use.pid for use in users}) - 1
    others = f", and {more} more" if more else ""
    raise QuantuiError(
        "cache.in-use",
        f"in use: {first.name} (process {first.pid}) {first.how}{others}",
        fix="Stop it first.",
        exit_code=ExitCode.DOES_NOT_FIT,
    )


def refuse_changed(item: CacheItem, tree: Tree) -> None:
    """Raise ``cache.changed`` where ``tree``, measured now, is not what ``item`` says.

    Without a stamp, the number of files and the bytes on disk have to be the same.
    """
    if item.stamp:
        same = item.stamp == astuple(tree.stamp)
    else:
        same = (item.files or tree.files, item.use.on_disk) == (tree.files, tree.use.on_disk)
    if not same:
        raise changed()


def changed() -> QuantuiError:
    """The refusal of what is not the same any more."""
    return QuantuiError(
        "cache.changed",
        "it has changed since it was looked at",
        fix="Look again, and delete it then.",
        exit_code=ExitCode.DOES_NOT_FIT,
    )


def forget_maker(place: Place) -> None:
    """Empty the lock file that said of an unfinished folder of the user's that it is quantui's.

    What appears there from now on is somebody else's. Its lock is held, see :func:`guarded`.
    """
    store = paths.artifacts_dir()
    if place.root == os.path.realpath(store):
        return
    base = _OF_STORE.sub("", place.path)
    left = any(
        os.path.lexists(base + end) for end in (".partial", ".unproven", ".unproven.partial")
    )
    if not left and not os.path.lexists(base):
        for lock in _maker_locks(place):
            with contextlib.suppress(OSError):
                os.truncate(lock, 0)


def _maker_locks(place: Place) -> list[Path]:
    """The lock files of the store that stand for a folder: an artifact's own, or the one that notes the folder."""
    store = paths.artifacts_dir()
    if place.root == os.path.realpath(store):
        return [store / f"{_OF_STORE.sub('', place.parts[0])}.lock"]
    base = _OF_STORE.sub("", place.path)
    found: list[Path] = []
    for lock in sorted(store.glob(f"{OUT}-*.lock")) if store.is_dir() else []:
        out = noted_inputs(lock).get(OUT)
        if out is not None and _real(out) == base:
            found.append(lock)
    return found


def _real(path: str) -> str:
    """The path with the links above its last name resolved."""
    above, name = os.path.split(path)
    return os.path.join(os.path.realpath(above), name)  # noqa: PTH118 - paths are text here


def _refuse_living(place: Place) -> None:
    from quantui.runtime.hosted_run import read_owner

    owner = read_owner(Path(place.path))
    if owner is not None:
        raise QuantuiError(
            "cache.run-lives",
            f"in use: the run is under way (process {owner.split()[0]})",
            fix="Stop it first.",
            exit_code=ExitCode.DOES_NOT_FIT,
        )
