"""What quantui merged and quantized, whole or not: in its store, and what is unfinished beside the user's folders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import Kind, Rebuild
from quantui.runtime.artifacts import (
    RECORD,
    UNPROVEN,
    ArtifactStore,
    read_artifact,
)
from quantui.runtime.caches.beside import left_beside
from quantui.runtime.caches.lock_holders import maker
from quantui.runtime.caches.origins import made_at, made_from_words, read_json, rebuild_of
from quantui.runtime.caches.tree_items import Found, folders_in, tree_item
from quantui.runtime.unproven import BROKEN, BROKEN_RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_NAME = re.compile(
    r"(?P<key>.+--.+--[0-9a-f]{16})(?P<end>\.staged(?:\.partial|-old|-deleting)?|\.broken)?"
)
"""A folder of the store: its key's name, and what follows it while it is not whole."""

_GOES_ON = "the same run goes on from it"
_AGAIN = "the same run makes it again"


def artifact_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every checkpoint of the store, the newest first; then what is unfinished or broken, there and elsewhere."""
    store = ArtifactStore()
    folders, problems = folders_in(store.root)
    yield from problems
    hub = _hub_roots()
    whole = [path for path in folders if not _ending(path)]
    records = {path: read_json(path / RECORD) for path in whole}
    for path in sorted(whole, key=lambda each: made_at(records[each]) or 0.0, reverse=True):
        if stop():
            return
        yield from _whole(path, records[path], store.root, hub, stop)
    for path in folders:
        if stop():
            return
        if _ending(path):
            yield from _not_whole(path, _ending(path), _lock_of(path), store.root, stop)
    for left in left_beside():
        if stop():
            return
        yield from _not_whole(left.path, left.ending, left.lock, left.path.parent, stop)


def checkpoint(record: dict[str, Any], hub: Sequence[Path]) -> dict[str, Any]:
    """What a ``quantui.json`` tells of the item of its folder."""
    return {
        "detail": _what(record),
        "made_at": made_at(record),
        "made_from": made_from_words(record),
        "rebuild": rebuild_of(record, hub),
    }


def is_merged(record: dict[str, Any]) -> bool:
    """Whether a ``quantui.json`` is of a merged model, not of a quantized one."""
    made = record.get("made")
    return not (isinstance(made, dict) and isinstance(made.get("recipe"), dict))


def _whole(
    path: Path,
    record: dict[str, Any],
    root: Path,
    hub: Sequence[Path],
    stop: Callable[[], bool],
) -> Iterator[Found]:
    """A folder that has an artifact's name, or a strange one."""
    lock = _lock_of(path)
    known: dict[str, Any] = {"trashable": True, "users": _users(lock)}
    if read_artifact(path) is not None:
        kind = Kind.MERGED if is_merged(record) else Kind.QUANTIZED
        known |= checkpoint(record, hub)
    elif record:
        kind = Kind.BROKEN
        known |= checkpoint(record, hub)
        known["detail"] = (
            f"{known['detail']}: files of it are missing or of another size, it is never reused"
        )
    elif lock.is_file():
        kind = Kind.UNFINISHED
        known |= {"detail": "has no record: not made to the end", "rebuild": Rebuild(_AGAIN)}
    else:
        kind = Kind.UNFINISHED
        known["detail"] = "orphaned: no record and no lock says what it is"
        known["rebuild"] = Rebuild("nothing says what it was made from", possible=False)
    yield from tree_item(kind, path, root, stop=stop, **known)


def _not_whole(
    path: Path, ending: str, lock: Path, root: Path, stop: Callable[[], bool]
) -> Iterator[Found]:
    """What a maker left, or a proof refused; ``ending``: what follows the name of the whole thing."""
    kind, rebuild = Kind.UNFINISHED, Rebuild(_AGAIN)
    if ending == BROKEN:
        kind, told = Kind.BROKEN, read_json(path / BROKEN_RECORD)
        why = told.get("why")
        detail = f"did not pass its proof: {why}" if isinstance(why, str) and why else ""
        detail = detail or "did not pass its proof"
    elif (path / UNPROVEN).is_file():
        detail = "made, not proven yet"
        rebuild = Rebuild(f"{_AGAIN}; as it is now, it only has to be proven")
    elif ending == ".staged-deleting":
        detail = "half deleted"
    elif ending == ".staged-old":
        detail = "replaced by a newer one, half deleted"
    elif not lock.is_file():
        detail = "orphaned: no lock says what it was to become"
        rebuild = Rebuild("nothing says what it was made from", possible=False)
    else:
        merge = (path / "merge_journal.jsonl").is_file()
        detail = f"half merged: {_GOES_ON}" if merge else "not made to the end"
    yield from tree_item(
        kind,
        path,
        root,
        stop=stop,
        detail=detail,
        rebuild=rebuild,
        # In a folder of the user's no trash stays that nothing leads to.
        trashable=root == lock.parent,
        users=_users(lock),
    )


def _what(record: dict[str, Any]) -> str:
    """``merged``, or ``awq by llm-compressor, 4 bit, group size 128``."""
    made = record.get("made")
    recipe = made.get("recipe") if isinstance(made, dict) else None
    if not isinstance(recipe, dict):
        return str(record.get("kind") or "made")[:80]
    told = [f"{recipe.get('method', 'quantized')} by {recipe.get('producer', 'unknown')}"]
    if isinstance(recipe.get("bits"), int):
        told.append(f"{recipe['bits']} bit")
    if isinstance(recipe.get("group_size"), int):
        told.append(f"group size {recipe['group_size']}")
    return ", ".join(told)[:200]


def _ending(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    if found is not None:
        return found["end"] or ""
    # A name that no key gives, with one of the endings all the same.
    known = (".staged.partial", ".staged-old", ".staged-deleting", ".staged", BROKEN)
    return next((end for end in known if path.name.endswith(end)), "")


def _lock_of(path: Path) -> Path:
    name = path.name.removesuffix(_ending(path)) if _ending(path) else path.name
    return path.with_name(f"{name}.lock")


def _users(lock: Path) -> tuple[Any, ...]:
    found = maker(lock)
    return () if found is None else (found,)


def _hub_roots() -> tuple[Path, ...]:
    from quantui.runtime.caches.roots import hub_roots

    return hub_roots()
