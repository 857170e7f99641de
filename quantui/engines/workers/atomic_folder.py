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
    which the next run clears. Raises what :func:`resumable_folder` raises.
    """
    with resumable_folder(out, lambda _: False, lambda _: False) as partial:
        yield partial


@contextmanager
def resumable_folder(
    out: Path, resumes: Callable[[Path], bool], keeps: Callable[[Path], bool]
) -> Iterator[Path]:
    """Like :func:`whole_folder`, but a folder that SIGKILL or a full disk left is gone on from.

    ``resumes`` says whether an unfinished folder is of the same work; any other is cleared. After a
    full disk ``keeps`` says whether what is there is worth keeping. Every other exception, SIGTERM and
    SIGINT remove it.

    Call it from the main thread, before threads start: the two signals are blocked, and a thread of its
    own waits for them, so that they work in the middle of a long tensor operation too, where a Python
    signal handler would wait for its end.

    Raises:
        FileExistsError: ``out`` exists; nothing is touched.
        BlockingIOError: Another process is writing the same folder.
        NotADirectoryError: Something that is no folder is in the place of ``out.partial``.
    """
    if out.exists():
        raise FileExistsError(errno.EEXIST, "it exists already", str(out))
    partial = partial_of(out)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    # Held until the process ends, however it ends.
    held = _lock(partial)
    ending = _Ending(partial, held)
    ending.wait_for_signals()
    try:
        if out.exists():
            raise FileExistsError(errno.EEXIST, "it exists already", str(out))
        if not resumes(partial):
            for entry in list(partial.iterdir()):
                is_folder = entry.is_dir() and not entry.is_symlink()
                shutil.rmtree(entry) if is_folder else entry.unlink()
        yield partial
        _open_to_readers(partial)
        _flush(partial)
        ending.rename(out)
        _flush_entry(out.parent)
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        ending.give_up(keeps if full else lambda _: False)
        raise
    finally:
        os.close(held)


_STOPS = {signal.SIGTERM, signal.SIGINT}

stopping = threading.Event()
"""Set once a signal has come: threads that write stop at once, so that the removal has less to do."""


class _Ending:
    """What becomes of an unfinished folder: whoever holds the lock decides, and the first decision stays.

    Without it a signal could empty the folder that the main thread gives its final name.
    """

    def __init__(self, partial: Path, held: int) -> None:
        self._partial = partial
        self._held = held
        self._lock = threading.Lock()
        self._decided = False

    def wait_for_signals(self) -> None:
        """From now on SIGTERM and SIGINT remove the folder and end the process."""

        def wait() -> None:
            signal.sigwait(_STOPS)
            stopping.set()
            # Never given back: nothing is decided after this, and the process ends here.
            self._lock.acquire()
            if not self._decided:
                self._remove()
            os._exit(CANCELLED)

        threading.Thread(target=wait, name="stop", daemon=True).start()

    def rename(self, out: Path) -> None:
        """The folder is whole."""
        with self._lock:
            self._partial.rename(out)
            self._decided = True

    def give_up(self, keeps: Callable[[Path], bool]) -> None:
        """The folder stays unfinished: it is removed, unless ``keeps`` says that it is of use."""
        with self._lock:
            if not self._decided and not keeps(self._partial):
                self._remove()
            self._decided = True

    def _remove(self) -> None:
        # Other threads go on writing until the process ends; a file made during the removal makes it
        # fail, so it is tried again. A folder that another process has made since is not ours.
        for _ in range(20):
            if not _is_at(self._held, self._partial):
                return
            shutil.rmtree(self._partial, ignore_errors=True)


def _lock(partial: Path) -> int:
    """Make the folder ``partial`` if need be, and open and lock it."""
    while True:
        if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder", str(partial))
        partial.mkdir(parents=True, exist_ok=True)
        try:
            held = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it until now may have renamed or removed it.
            if _is_at(held, partial):
                return held
        except OSError:
            os.close(held)
            raise
        os.close(held)


def _is_at(held: int, folder: Path) -> bool:
    """Whether the open folder ``held`` is what lies at ``folder``."""
    try:
        return os.path.samestat(os.fstat(held), folder.lstat())
    except FileNotFoundError:
        return False


def _open_to_readers(folder: Path) -> None:
    """Give files the mode that ``open`` gives: safetensors makes them for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~umask)


def _flush(folder: Path) -> None:
    """Let a loss of power find ``folder`` whole: the name that it gets says so."""
    for entry in (*folder.rglob("*"), folder):
        _flush_entry(entry)


def _flush_entry(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
