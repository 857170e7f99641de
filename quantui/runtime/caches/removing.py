"""Removes a tree by descriptors: never through a link, never across a mount, counting what each removal frees."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.runtime.caches.measuring import BLOCK, can_reflink
from quantui.runtime.caches.places import FOLDER_FLAGS, mount_of
from quantui.runtime.caches.reflinks import LEAST, shared_extents
from quantui.runtime.caches.renaming import make_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DEEPEST = 100
"""Folders open at once; a deeper one is moved up first and removed later."""

_ROUNDS = 5
"""How often a folder is looked into again into which somebody else writes."""

WHOLE_BY = (
    "quantui.json",
    "config.json",
    "adapter_config.json",
    "params.json",
    "model_index.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Files by which a folder is taken for a model; they go first, so that what a stop leaves is never taken for one."""

_TOLD_BY = "what.json"
"""In the trash: says what a thing was, until nothing else of it is left."""


@dataclass
class _Folder:
    """A folder being emptied: its descriptor, its name in the folder above, and what is still to go."""

    descriptor: int
    name: str
    names: list[tuple[str, bool]]
    rounds: int = 1


class Removal:
    """Removes the entry ``name`` of the open folder ``above``. ``files`` and ``freed`` (bytes on disk) count up.

    A file's blocks count when its last name goes (st_nlink 1 right before), a folder's own when it goes.
    ``problem`` tells the first thing that could not be removed; "" when there was none. ``all_or_none``: where the
    very first thing cannot be removed, it ends there, and everything is as it was.
    """

    def __init__(self, above: int, name: str, *, all_or_none: bool = False) -> None:
        self.files = 0
        self.freed = 0
        self.problem = ""
        self.stopped = False
        self._above = above
        self._all_or_none = all_or_none
        self._device = os.fstat(above).st_dev
        self._mount = mount_of(above)
        self._reflinks = can_reflink(f"/proc/self/fd/{above}")
        self._tops = [name]
        self._moved_up = 0
        self._folders = 0
        self._token = secrets.token_hex(4)
        self._stack: list[_Folder] = []

    @property
    def untouched(self) -> bool:
        """Whether nothing of it is gone yet."""
        return not self.files and not self._folders and not self._moved_up

    def steps(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Remove, yielding after each entry; ends early with ``stopped`` once ``cancelled()``."""
        try:
            while self._tops:
                if self.stopped or cancelled():
                    self.stopped = True
                    return
                name = self._tops.pop()
                if self._entered(self._above, name):
                    yield from self._emptied(cancelled)
                else:
                    self._unlink(self._above, name)
                    yield
        finally:
            while self._stack:
                os.close(self._stack.pop().descriptor)

    def _emptied(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        while self._stack:
            if cancelled() or (self.problem and self._all_or_none and self.untouched):
                self.stopped = True
                return
            folder = self._stack[-1]
            if not folder.names:
                self._leave()
                yield
                continue
            name, is_folder = folder.names.pop()
            if not is_folder:
                self._unlink(folder.descriptor, name)
                yield
            elif len(self._stack) >= _DEEPEST:
                self._move_up(folder.descriptor, name)
            elif not self._entered(folder.descriptor, name):
                self._unlink(folder.descriptor, name)
                yield

    def _entered(self, above: int, name: str) -> bool:
        """Open a folder and read its names; False for what is no folder (any more). A refused one is noted."""
        try:
            descriptor = _opened(above, name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            self._note(name, error)
            return True
        status = os.fstat(descriptor)
        if status.st_dev != self._device or mount_of(descriptor) != self._mount:
            os.close(descriptor)
            self.problem = self.problem or f"{name} in it is a mount point"
            return True
        self._stack.append(_Folder(descriptor, name, self._names(descriptor, name)))
        return True

    def _names(self, descriptor: int, name: str) -> list[tuple[str, bool]]:
        """The entries, popped from the end: what makes it look whole goes first, and what tells of a trash last."""
        found: list[tuple[str, bool]] = []
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    found.append((entry.name, entry.is_dir(follow_symlinks=False)))
        except OSError as error:
            self._note(name, error)
        found.sort(key=lambda one: (one[0] in WHOLE_BY, one[0] != _TOLD_BY, one[0]))
        return found

    def _leave(self) -> None:
        """Remove the emptied folder; one that is not empty after all is looked into again."""
        folder = self._stack.pop()
        above = self._stack[-1].descriptor if self._stack else self._above
        try:
            status = os.fstat(folder.descriptor)
            _with_right(above, lambda: os.rmdir(folder.name, dir_fd=above))
        except FileNotFoundError:
            pass
        except OSError as error:
            again = error.errno in {errno.ENOTEMPTY, errno.EEXIST} and folder.rounds < _ROUNDS
            names = (
                self._names(folder.descriptor, folder.name) if again and not self.problem else []
            )
            if names:
                self._stack.append(
                    _Folder(folder.descriptor, folder.name, names, folder.rounds + 1)
                )
                return
            self._note(folder.name, error)
        else:
            self._folders += 1
            self.freed += status.st_blocks * BLOCK
        os.close(folder.descriptor)

    def _unlink(self, above: int, name: str) -> None:
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return  # It was none a moment ago; the folder it lies in is looked into again.
            # What reflinked copies hold too can only be seen while the file has its name.
            held = self._held(above, name, status) if status.st_nlink == 1 else 0
            _with_right(above, lambda: os.unlink(name, dir_fd=above))
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(name, error)
            return
        self.files += 1
        self.freed += held

    def _held(self, above: int, name: str, status: os.stat_result) -> int:
        """Bytes on disk that go with a file's last name."""
        allocated = status.st_blocks * BLOCK
        if not self._reflinks or allocated < LEAST or not stat.S_ISREG(status.st_mode):
            return allocated
        return allocated - shared_extents(f"/proc/self/fd/{above}/{name}", allocated)

    def _move_up(self, above: int, name: str) -> None:
        self._moved_up += 1
        higher = f"deep-{self._token}-{self._moved_up}"
        try:
            with contextlib.suppress(OSError):
                make_writable(above, name)
            _with_right(
                above, lambda: os.rename(name, higher, src_dir_fd=above, dst_dir_fd=self._above)
            )
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(name, error)
            return
        self._tops.append(higher)

    def _note(self, name: str, error: OSError) -> None:
        if not self.problem:
            self.problem = f"{name}: {error.strerror or error}"


def _opened(above: int, name: str) -> int:
    """Open a folder, one of ours that may not be read as well."""
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=above)
    except PermissionError:
        make_writable(above, name)
        return os.open(name, FOLDER_FLAGS, dir_fd=above)


def _with_right(above: int, act: Callable[[], None]) -> None:
    """Do something to an entry of a folder, making the folder writable where only that is in the way."""
    try:
        act()
    except PermissionError:
        mode = stat.S_IMODE(os.fstat(above).st_mode)
        if mode & stat.S_IRWXU == stat.S_IRWXU:
            raise
        os.fchmod(above, mode | stat.S_IRWXU)
        act()
