"""What a record says of how its checkpoint was made, and what having it again would take now."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import Rebuild
from quantui.domain.caches.made_from import Ingredient, MadeFrom
from quantui.domain.formatting import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LARGEST_RECORD = 64 * 1024**2


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; nothing where there is none that can be read."""
    try:
        if path.stat().st_size > LARGEST_RECORD:
            return {}
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def made_from_words(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a ``quantui.json`` says its checkpoint was made from; an old one knows a short name and hashes only."""
    found = MadeFrom.from_dict(record.get("made_from"))
    if found is not None:
        return found.words
    base, inputs = record.get("base"), record.get("inputs")
    if not isinstance(base, str):
        return ()
    adapter = inputs.get("adapter") if isinstance(inputs, dict) else None
    return (base, f"adapter {adapter[:12]}") if isinstance(adapter, str) else (base,)


def made_at(record: Mapping[str, Any]) -> float | None:
    """When the record was written, seconds since the epoch."""
    return number(record.get("created"))


def rebuild_of(record: Mapping[str, Any], roots: Sequence[Path]) -> Rebuild:
    """How the checkpoint of a ``quantui.json`` comes back; ``roots``: the Hub caches to look for its sources in."""
    seconds = _seconds(record)
    took = f" in {format_seconds(seconds)}" if seconds is not None else ""
    found = MadeFrom.from_dict(record.get("made_from"))
    if found is None:
        base = record.get("base")
        name = base if isinstance(base, str) and base else "what it was made from"
        return Rebuild(f"made from {name}{took}", seconds=seconds)
    told = [f"made from {found.short}{took}"]
    download, possible = 0, True
    for one in found.ingredients:
        what = "base" if one is found.base else "adapter"
        if is_there(one, roots):
            continue
        if one.on_hub:
            download += one.size or 0
            size = f": {format_bytes(one.size)} to download again" if one.size else ""
            told.append(f"its {what} is not in the Hub's cache any more{size}")
        else:
            possible = False
            told.append(f"its {what} {one.path} is gone")
    return Rebuild("; ".join(told), possible, seconds, download or None)


def is_there(one: Ingredient, roots: Sequence[Path]) -> bool:
    """Whether its folder, or its snapshot in one of the Hub caches, is on this machine."""
    if one.path is not None:
        return _is_folder(Path(one.path))
    repository = f"models--{one.ref.replace('/', '--')}"
    for root in roots:
        snapshots = root / repository / "snapshots"
        if _is_folder(snapshots / one.revision if one.revision else snapshots):
            return True
    return False


def number(value: object) -> float | None:
    """``value`` as a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _seconds(record: Mapping[str, Any]) -> float | None:
    """What making took: as the run measured it; in an old record, what the worker says of its part."""
    found = number(record.get("seconds"))
    if found is None and "seconds" not in record:
        made = record.get("made")
        found = number(made.get("seconds")) if isinstance(made, dict) else None
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
