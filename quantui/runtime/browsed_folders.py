"""The folders that a person told quantui to look for models in, kept in ``folders.json``."""

from __future__ import annotations

import json
from pathlib import Path

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.artifacts import write_whole
from quantui.runtime.paths import home

_MOST = 200


def added_folders() -> tuple[Path, ...]:
    """The folders, in the order they were added; none where the file is missing or damaged."""
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ()
    names = kept.get("folders") if isinstance(kept, dict) else None
    if not isinstance(names, list):
        return ()
    return tuple(Path(name) for name in names if isinstance(name, str) and name)[:_MOST]


def add_folder(text: str) -> Path:
    """Keep the folder that ``text`` names; gives its absolute path.

    Raises QuantuiError ``model.folder-not-found``, ``folders.not-a-folder`` and ``folders.not-kept``.
    """
    try:
        folder = Path(text.strip()).expanduser().absolute()
        there, is_folder = folder.exists(), folder.is_dir()
    except (OSError, ValueError, RuntimeError):
        folder, there, is_folder = Path(text.replace("\0", "")), False, False
    if not there or not text.strip():
        from quantui.runtime.models import folder_not_found

        raise folder_not_found(text, folder, adapter=False)
    if not is_folder:
        raise QuantuiError(
            "folders.not-a-folder",
            f"{text} is a file.",
            "Models are looked for in folders.",
            f"Give the folder it is in: {folder.parent}",
            ExitCode.NOT_FOUND,
        )
    known = added_folders()
    if folder not in known:
        _keep((*known, folder))
    return folder


def remove_folder(folder: Path) -> None:
    """Forget a folder; what is in it stays. Raises QuantuiError ``folders.not-kept``."""
    _keep(tuple(kept for kept in added_folders() if kept != folder))


def _keep(folders: tuple[Path, ...]) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_whole(_file(), {"folders": [str(folder) for folder in folders]})
    except OSError as error:
        raise QuantuiError(
            "folders.not-kept",
            f"The list of folders cannot be written to {_file()}.",
            error.strerror or str(error),
            "Make the folder writable, or set QUANTUI_HOME to another one.",
        ) from None


def _file() -> Path:
    return home() / "folders.json"
