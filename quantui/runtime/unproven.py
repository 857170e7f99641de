"""A checkpoint that is made and not proven yet, and one that did not pass its proof.

Making one may take hours. When its proof is kept from running by something else (another program has the memory, a
disk is full), the folder stays with ``quantui-unproven.json``, and the same run again begins with the proof. A
result that is wrong gets the name ``NAME.broken`` and ``quantui-broken.json``, which says why; nothing reuses it.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from quantui.runtime.artifacts import UNPROVEN, file_sizes, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BROKEN_RECORD = "quantui-broken.json"
UNPROVEN_FOLDER = ".unproven"
"""What follows the name of a folder of the user's until it is proven."""

BROKEN = ".broken"
"""What follows the name of a folder that did not pass its proof."""


def note_unproven(staged: Path, inputs: Mapping[str, str], made: dict[str, Any]) -> None:
    """Say in ``staged``, which a producer has just finished, what it is and what the producer told of it."""
    write_whole(
        staged / UNPROVEN, {"inputs": dict(inputs), "made": made, "files": file_sizes(staged)}
    )


def find_unproven(staged: Path, inputs: Mapping[str, str]) -> dict[str, Any] | None:
    """What the producer told of ``staged``, if it is made from ``inputs`` and whole; else None."""
    try:
        note = json.loads((staged / UNPROVEN).read_text(encoding="utf-8"))
        whole = all((staged / name).stat().st_size == size for name, size in note["files"].items())
        made = note["made"]
        if not whole or note["inputs"] != dict(inputs) or not isinstance(made, dict):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return made


def set_aside(staged: Path, broken: Path, record: dict[str, Any]) -> Path:
    """Rename ``staged`` to ``broken`` with ``record`` in it."""
    (staged / UNPROVEN).unlink(missing_ok=True)
    write_whole(staged / BROKEN_RECORD, record)
    if is_set_aside(broken):
        shutil.rmtree(broken, ignore_errors=True)
    staged.rename(broken)
    return broken


def is_set_aside(folder: Path) -> bool:
    """Whether :func:`set_aside` made ``folder``, or there is nothing."""
    return not os.path.lexists(folder) or (folder / BROKEN_RECORD).is_file()
