"""Where quantui keeps things. ``QUANTUI_HOME`` puts all of it below one folder."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder that holds artifacts, engines and runs: ``$QUANTUI_HOME`` or the user's data folder.

    The default follows the platform (``$XDG_DATA_HOME/quantui`` on Linux), through platformdirs.
    """
    chosen = os.environ.get("QUANTUI_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("quantui"))


def artifacts_dir() -> Path:
    """Merged and quantized checkpoints, one folder each."""
    return home() / "artifacts"


def engines_dir() -> Path:
    """Environments that quantui made, one folder an engine."""
    return home() / "engines"


def runs_dir() -> Path:
    """One folder a run: ``events.jsonl``, logs, job files."""
    return home() / "runs"


def cache_dir() -> Path:
    """Small answers worth keeping (engine capabilities, file hashes); deleting it costs only time."""
    return home() / "cache"
