"""Which things the known profiles need: their models and adapters, what was made from them, their engines."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.made_from import MadeFrom
from quantui.domain.errors import QuantuiError
from quantui.engines.merge_planning import name_made_from
from quantui.runtime.artifacts import RECORD
from quantui.runtime.caches.origins import read_json
from quantui.runtime.known_profiles import known_profiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.draft import Draft

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKPOINTS = frozenset({Kind.MERGED, Kind.QUANTIZED})
_USED = _CHECKPOINTS | {Kind.HUB, Kind.REVISION, Kind.ENGINE, Kind.FOLDER}


@dataclass(frozen=True)
class _Profile:
    """A profile that could be read, and its file."""

    file: str
    draft: Draft

    @property
    def refs(self) -> tuple[tuple[str, str | None], ...]:
        """The model and the adapters, each with its revision."""
        adapter = self.draft.adapter
        found = [(self.draft.model.id, self.draft.model.revision)]
        found += [(adapter.id, adapter.revision)] if adapter.id else []
        found += [(ref, None) for ref in adapter.also]
        return tuple(found)

    @property
    def commits(self) -> frozenset[str]:
        """The commits that it was recorded with."""
        recorded = self.draft.recorded
        told = f"{recorded.base_revision or ''} {recorded.adapter_revision or ''}"
        return frozenset(_COMMIT.findall(told))


class ProfileUses:
    """The profiles that are known, read once; ask it about any number of things.

    ``items``: all that is known, by path. A profile that cannot be read uses nothing.
    """

    def __init__(self, items: Mapping[str, CacheItem]) -> None:
        self._profiles = _read()
        self._records: dict[str, dict[str, Any]] = {}
        serving = [
            item.name
            for item in items.values()
            if item.kind is Kind.ENGINE and item.name.startswith("vllm")
        ]
        # One that names no engine, and was never run, takes the one that there is.
        self._only_engine = serving[0] if len(serving) == 1 else ""
        quantized = [item for item in items.values() if item.kind is Kind.QUANTIZED]
        self._quantized = {
            one.file
            for one in self._profiles
            if any(self._made_for(one, item) for item in quantized)
        }

    def of(self, item: CacheItem) -> tuple[str, ...]:
        """The files of the profiles that use it, those used last first."""
        if item.kind not in _USED:
            return ()
        return tuple(one.file for one in self._profiles if self._uses(one, item))

    def _uses(self, profile: _Profile, item: CacheItem) -> bool:
        if item.kind is Kind.HUB:
            return any(ref == item.name for ref, _ in profile.refs) and _is_model(item.path)
        if item.kind is Kind.REVISION:
            return self._uses_revision(profile, item)
        if item.kind is Kind.ENGINE:
            return (_engine(profile.draft) or self._only_engine) == item.name
        if item.kind is Kind.FOLDER:
            return any(_same_folder(ref, item.path) for ref, _ in profile.refs)
        if item.kind is Kind.MERGED and profile.file in self._quantized:
            # The quantized model is made: the merged one was a step to it.
            return False
        return item.kind in _CHECKPOINTS and self._made_for(profile, item)

    def _uses_revision(self, profile: _Profile, item: CacheItem) -> bool:
        repository, commit = item.parent or "", os.path.basename(item.path)  # noqa: PTH119
        if not _is_model(repository):
            return False
        name = _repo_id(repository)
        for ref, revision in profile.refs:
            if ref != name:
                continue
            if commit in profile.commits:
                return True
            wanted = revision or "main"
            if commit == wanted or commit == _commit_of(repository, wanted):
                return True
        return False

    def _made_for(self, profile: _Profile, item: CacheItem) -> bool:
        """Whether a checkpoint was made from the profile's model and adapters, as the profile has them made."""
        record = self._record(item.path)
        method = profile.draft.quantization.method
        if item.kind is Kind.QUANTIZED and _method(record) != method:
            return False
        if item.kind is Kind.MERGED and not profile.draft.adapter.id:
            return False
        if record.get("made_from") is None:
            return _by_content(profile.draft, record) or _by_short_name(profile.refs, record)
        return _by_content(profile.draft, record) or _by_name(profile.refs, record)

    def _record(self, path: str) -> dict[str, Any]:
        if path not in self._records:
            self._records[path] = read_json(Path(path, RECORD))
        return self._records[path]


def _read() -> tuple[_Profile, ...]:
    from quantui.runtime.profile_file import load_profile

    found = []
    for one in known_profiles():
        try:
            found.append(_Profile(str(one.path), load_profile(one.path)))
        except (QuantuiError, OSError, ValueError, RecursionError):
            continue
    return tuple(found)


def _by_content(draft: Draft, record: Mapping[str, Any]) -> bool:
    """By the hashes of the base and the adapters that both have recorded."""
    inputs, told = record.get("inputs"), draft.recorded
    if not isinstance(inputs, dict) or not told.base_fingerprint:
        return False
    if inputs.get("base") != told.base_fingerprint:
        return False
    return _hashes(inputs.get("adapter")) == _hashes(told.adapter_fingerprint)


def _hashes(text: object) -> tuple[str, ...]:
    """The hashes in a text that may have weights and other words between them."""
    return tuple(re.findall(r"[0-9a-f]{16,}", text)) if isinstance(text, str) else ()


def _by_name(refs: Sequence[tuple[str, str | None]], record: Mapping[str, Any]) -> bool:
    """By what base and adapters are called, where the record knows."""
    made = MadeFrom.from_dict(record.get("made_from"))
    if made is None or len(made.ingredients) != len(refs):
        return False
    for (ref, revision), one in zip(refs, made.ingredients, strict=True):
        same = one.ref == ref or (one.path is not None and _same_folder(ref, one.path))
        pinned = revision is not None and _COMMIT.fullmatch(revision) is not None
        if not same or (pinned and one.revision not in {None, revision}):
            return False
    return True


def _by_short_name(refs: Sequence[tuple[str, str | None]], record: Mapping[str, Any]) -> bool:
    """By the name that a folder has from its sources: all that an old record knows of them."""
    names = [ref for ref, _ in refs]
    return record.get("base") == name_made_from(names[0], names[1:])


def _method(record: Mapping[str, Any]) -> str:
    made = record.get("made")
    recipe = made.get("recipe") if isinstance(made, dict) else None
    method = recipe.get("method") if isinstance(recipe, dict) else None
    return method if isinstance(method, str) else ""


def _engine(draft: Draft) -> str | None:
    """The engine that a profile names, or else the one that it was recorded on; its own interpreter is no engine."""
    if draft.engine.python:
        return draft.engine.python
    return draft.engine.name if draft.engine.name != "auto" else draft.recorded.engine


def _same_folder(ref: str, path: str) -> bool:
    if not ref.startswith(("/", "~")):
        return False
    try:
        return os.path.realpath(Path(ref).expanduser()) == os.path.realpath(path)
    except (OSError, ValueError, RuntimeError):
        return False


def _is_model(repository: str) -> bool:
    return os.path.basename(repository).startswith("models--")  # noqa: PTH119


def _repo_id(repository: str) -> str:
    return os.path.basename(repository).partition("--")[2].replace("--", "/")  # noqa: PTH119


def _commit_of(repository: str, ref: str) -> str:
    """The commit that a branch or tag of a repository in the cache stands for; "" where it has none."""
    if ".." in ref:
        return ""
    try:
        return Path(repository, "refs", ref).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
