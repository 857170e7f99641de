"""Where a thing lies: strictly below a known root, reached without a link. Nothing else is ever touched."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.caches.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opens a folder and never what a link leads to."""


@dataclass(frozen=True)
class Place:
    """``root``: a known root without links. ``parts``: the names from there to the thing; () for the root itself."""

    root: str
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The thing's own name."""
        return self.parts[-1]

    @property
    def path(self) -> str:
        """The thing's path without links."""
        return os.path.join(self.root, *self.parts)  # noqa: PTH118 - paths are text here


def known_place(path: str, root: str) -> Place:
    """The place of ``path`` in ``root``; raises ``cache.outside`` unless that is a known root and the path is in it.

    Only the root's own links are resolved: a name below it that is a link is refused by :func:`opened_parent`.
    """
    from quantui.runtime.caches.roots import known_roots

    real = os.path.realpath(root)
    written = [str(known.path) for known in known_roots()]
    written = [top for top in written if os.path.realpath(top) == real]
    if not written:
        raise _outside(path, f"{root} is none of the folders that quantui looks after.")
    if path in {root, real}:
        return Place(real, ())
    for top in (root, real, *written):
        whole = top.rstrip("/") + "/"
        if path.startswith(whole):
            parts = tuple(path[len(whole) :].split("/"))
            if all(part not in {"", ".", ".."} and "\0" not in part for part in parts):
                return Place(real, parts)
    raise _outside(path, f"It does not lie below {root}.")


@contextlib.contextmanager
def opened_parent(place: Place) -> Iterator[int]:
    """A descriptor of the folder that the thing lies in; raises ``cache.outside`` where a link is on the way.

    Raises FileNotFoundError where the way is gone. Names used with the descriptor stay in that folder, whatever
    is renamed above it meanwhile.
    """
    descriptor = os.open(place.root, FOLDER_FLAGS)
    try:
        for part in place.parts[:-1]:
            try:
                below = os.open(part, FOLDER_FLAGS, dir_fd=descriptor)
            except NotADirectoryError:
                raise _outside(place.path, f"{part} on the way to it is no folder.") from None
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def refuse_mounts(path: str) -> None:
    """Raise ``cache.mounted`` where another file system, or a folder from elsewhere, is mounted at or below it."""
    below = path.rstrip("/") + "/"
    for point in mounts(fresh=True).kinds:
        if point == path or point.startswith(below):
            raise QuantuiError(
                "cache.mounted",
                f"{point} is a mount point.",
                "What lies on it may belong to something else.",
                "Unmount it first.",
                ExitCode.DOES_NOT_FIT,
            )


def mount_of(descriptor: int) -> int:
    """The number of the mount that an open folder lies on (proc(5), fdinfo); -1 where it cannot be read."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:  # noqa: PTH123 - for each folder
            found = [line.split()[1] for line in file if line.startswith(b"mnt_id:")]
        return int(found[0]) if found else -1
    except (OSError, ValueError):
        return -1


def _outside(path: str, why: str) -> QuantuiError:
    return QuantuiError(
        "cache.outside",
        f"{path} is not quantui's to delete.",
        why,
        "Look with: quantui cache ls",
        ExitCode.BAD_INPUT,
    )
