"""A short folder of its own for the sockets of a child's processes, gone with them.

vLLM's processes talk over Unix sockets, files named by a UUID in ``VLLM_RPC_BASE_PATH`` or else in the folder of
temporary files (vllm/envs.py; vllm/utils/network_utils.py, ``get_open_zmq_ipc_path``). Nothing unlinks them when a
process is killed. Here they lie in a folder that the keeper removes once no process of the child is left.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from quantui.runtime import keeper

VARIABLE = "VLLM_RPC_BASE_PATH"

_LONGEST = 107 - 1 - 36
"""Bytes of a folder in which a socket named by a UUID has a path that the kernel takes (unix(7): 108 with its end)."""


def make_socket_folder(run_id: str) -> str | None:
    """A new folder that only this user may enter; None where no place is short enough or can be written."""
    for place in _places():
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix=_prefix(run_id), dir=place)
            if len(os.fsencode(folder)) <= _LONGEST:
                return folder
            Path(folder).rmdir()
    return None


def clear_socket_folders(run_id: str) -> None:
    """Remove those of a run whose quantui and keepers were all killed."""
    for place in _places():
        with contextlib.suppress(OSError):
            for folder in Path(place).iterdir():
                begin, _, rest = folder.name.rpartition("-")
                if f"{begin}-" == _prefix(run_id) and rest and _is_ours(folder):
                    keeper.remove_sockets(str(folder))


def _prefix(run_id: str) -> str:
    return f"quantui-{run_id}-"


def _places() -> tuple[str, ...]:
    """Folders to make it in, the usual one first."""
    known = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/dev/shm")
    return tuple(dict.fromkeys(place for place in known if place))


def _is_ours(folder: Path) -> bool:
    """Whether it is a folder, no link, of this user: others write to /tmp too."""
    found = folder.lstat()
    return found.st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink()
