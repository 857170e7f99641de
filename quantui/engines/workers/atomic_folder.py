"""A folder that is either whole or absent, whatever stops the program that writes it.

Imports the standard library alone; workers import it before ``quantui_wire``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANCELLED = 130
"""The exit status of a worker that SIGINT or SIGTERM stopped."""


def partial_of(out: Path) -> Path:
    """Where ``out`` is written until it is whole: beside it, so that a rename finishes it."""
    return out.with_name(out.name + ".partial")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside ``out``, and rename it to ``out`` once the block has succeeded.

    After an exception, SIGTERM or SIGINT the folder is removed; SIGKILL leaves ``out.partial``,
    which the next run clears. Call it from the main thread, before threads start: the two signals
    are blocked, and a thread of its own waits for them, so that they work in the middle of a long
    tensor operation too, where a Python signal handler would wait for its end.

    Raises:
        FileExistsError: ``out`` exists; nothing is touched.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already")
    partial = partial_of(out)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    _remove_when_stopped(partial)
    try:
        yield partial
        _open_to_readers(partial)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def resumable_folder(
    out: Path, resumes: Callable[[Path], bool], keeps: Callable[[Path], bool]
) -> Iterator[Path]:
    """Like :func:`whole_folder`, but a folder that SIGKILL or a full disk left is gone on from.

    ``resumes`` says whether an unfinished folder is of the same work; any other is cleared. After a
    full disk ``keeps`` says whether what is there is worth keeping. Every other exception, SIGTERM and
    SIGINT remove it.

    Raises:
        FileExistsError: ``out`` exists; nothing is touched.
        BlockingIOError: Another process is writing the same folder.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already")
    partial = partial_of(out)
    partial.mkdir(parents=True, exist_ok=True)
    # Held until the process ends, however it ends.
    held = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not resumes(partial):
        for entry in list(partial.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    _remove_when_stopped(partial)
    try:
        yield partial
        _open_to_readers(partial)
        partial.rename(out)
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (full and keeps(partial)):
            shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _open_to_readers(folder: Path) -> None:
    """Give files the mode that ``open`` gives: safetensors makes them for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~umask)


def _remove_when_stopped(partial: Path) -> None:
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)

    def wait() -> None:
        signal.sigwait(stops)
        # The main thread goes on writing until the process ends; a file made during the removal
        # makes it fail, so it is tried again.
        for _ in range(20):
            shutil.rmtree(partial, ignore_errors=True)
            if not partial.exists():
                break
        os._exit(CANCELLED)

    threading.Thread(target=wait, name="stop", daemon=True).start()
