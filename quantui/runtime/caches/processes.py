"""Which running processes use what lies on disk: one look over ``/proc``, and the runs of quantui that live.

Open and mapped files, the working folder and the program tell of most. vLLM has nothing of a model open once it has
loaded it, so that its command line has to tell, and the records of quantui's own runs.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.caches.items import ProcessUse
from quantui.runtime.caches.command_lines import as_paths, asks_quantui, is_descriptor, named_in
from quantui.runtime.caches.namespaces import (
    Mount,
    Translation,
    mounts_of,
    namespace_of,
    own_namespace,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_MAPPED = re.compile(rb"^\S+ \S+ \S+ \S+ [1-9]\d* +(/.*)$", re.MULTILINE)
"""A line of ``maps`` with a file (proc(5)): addresses, permissions, offset, device, inode, path."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")
_DELETED = " (deleted)"
_OPEN = "has files of it open"
_MAPPED_IN = "has files of it in memory"
_STANDS = "works in it"
_PROGRAM = "runs from it"
_STARTED = "was started with it"


@dataclass(frozen=True)
class _Seen:
    """A process that uses something, and how."""

    pid: int
    how: str
    run_id: str = ""
    name: str = ""


@dataclass
class ProcessUses:
    """What was seen in one look; ask it about any number of things."""

    _paths: list[tuple[str, _Seen]] = field(default_factory=list)
    _words: dict[str, list[_Seen]] = field(default_factory=dict)

    def of(self, path: str, names: Collection[str] = ()) -> tuple[ProcessUse, ...]:
        """The processes that use ``path`` or what lies below it, or that were started with one of ``names``.

        ``names``: what a command line calls the thing otherwise, such as the id of a repository. Each process is
        named once, by the strongest of its uses. Links that lead to ``path`` are seen through.
        """
        found: dict[int, _Seen] = {}
        for place in {os.path.normpath(path), os.path.realpath(path)}:
            for seen in self._below(place):
                _keep(found, seen)
        for name in names:
            for seen in self._words.get(name, ()):
                _keep(found, seen)
        return tuple(
            ProcessUse(seen.pid, seen.name, seen.how, seen.run_id)
            for seen in sorted(found.values(), key=lambda seen: seen.pid)
        )

    def add_path(self, path: str, seen: _Seen, elsewhere: Translation | None = None) -> None:
        """Note a use of a path; :meth:`settle` before asking. ``elsewhere``: how to read it where it is not ours."""
        self._paths.append((path, seen))
        if elsewhere is not None:
            self._paths += [(place, seen) for place in elsewhere.here(path) if place != path]

    def add_word(self, word: str, seen: _Seen) -> None:
        """Note a word of a command line."""
        self._words.setdefault(word, []).append(seen)

    def settle(self) -> None:
        """Put what was noted in order."""
        self._paths.sort(key=lambda noted: noted[0])

    def _below(self, place: str) -> Iterator[_Seen]:
        for start in (place, place.rstrip("/") + "/"):
            at = bisect.bisect_left(self._paths, start, key=lambda noted: noted[0])
            for path, seen in self._paths[at:]:
                if not (path == place if start == place else path.startswith(start)):
                    break
                yield seen


def process_uses() -> ProcessUses:
    """Look over all processes once: some 20 ms for 200 of them, more where they have much in memory.

    Of other users' processes only the command lines can be read, unless this one is root's. What this process has
    open while it looks at things does not count, nor do the command lines that brought it here; what it has in
    memory does: whoever calls quantui from Python may have loaded the model. Folders that are only open do not count:
    they are being listed.
    """
    uses = ProcessUses()
    own = os.getpid()
    above = _ancestors(own)
    containers = _Containers()
    for pid in _pids():
        _look(uses, pid, containers.of(pid), own=pid == own, asked=pid in above)
    _look_at_runs(uses)
    uses.settle()
    return uses


def recent_uses() -> ProcessUses:
    """What :func:`process_uses` gives, at most a second old: for refusing early, before the look that decides."""
    now = time.monotonic()
    if not _recent or now - _recent[0][0] > _RECENT_S:
        uses = process_uses()
        _recent[:] = [(time.monotonic(), uses)]
    return _recent[0][1]


_RECENT_S = 1.0
_recent: list[tuple[float, ProcessUses]] = []


def _keep(found: dict[int, _Seen], seen: _Seen) -> None:
    """Note a process; that it is a run of quantui's says the most, and what it was started with the least."""
    before = found.get(seen.pid)
    if before is None or _RANK.get(seen.how, 0) < _RANK.get(before.how, 0):
        found[seen.pid] = seen


_RANK: Mapping[str, int] = {_OPEN: 1, _MAPPED_IN: 2, _PROGRAM: 3, _STANDS: 4, _STARTED: 5}


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []


class _Containers:
    """How the paths of processes in other namespaces are read, each namespace looked at once."""

    def __init__(self) -> None:
        self._own = own_namespace()
        self._here: tuple[Mount, ...] = ()
        self._known: dict[str, Translation] = {}

    def of(self, pid: int) -> Translation | None:
        """For a process; None where it sees what this one sees, or nobody may know."""
        name = namespace_of(pid)
        if not name or not self._own or name == self._own:
            return None
        if name not in self._known:
            self._here = self._here or mounts_of("self")
            self._known[name] = Translation(mounts_of(pid), self._here)
        return self._known[name]


def _look(
    uses: ProcessUses, pid: int, elsewhere: Translation | None, *, own: bool, asked: bool
) -> None:
    """Note what one process uses; one that ends meanwhile, or is another user's, as far as it can be seen.

    ``own``: it is this process. ``asked``: this one comes from it, so that its command line names things only
    because they are asked about.
    """
    folder = f"/proc/{pid}"
    name = _read(f"{folder}/comm").decode("utf-8", "replace").strip() or "?"
    cwd = _link(f"{folder}/cwd")
    if cwd:
        uses.add_path(cwd, _Seen(pid, _STANDS, name=name), elsewhere)
    program = _link(f"{folder}/exe")
    if program:
        uses.add_path(program, _Seen(pid, _PROGRAM, name=name), elsewhere)
    mapped = _Seen(pid, _MAPPED_IN, name=name)
    for path in set(_MAPPED.findall(_read(f"{folder}/maps"))):
        text = _ESCAPED.sub(lambda code: bytes([int(code[1], 8) & 0xFF]), path)
        uses.add_path(os.fsdecode(text).removesuffix(_DELETED), mapped, elsewhere)
    if not own:
        _note_open(uses, folder, _Seen(pid, _OPEN, name=name), elsewhere)
    if own or asked:
        return
    arguments = [os.fsdecode(part) for part in _read(f"{folder}/cmdline").split(b"\0") if part]
    if not asks_quantui(arguments):
        _note_arguments(uses, arguments, cwd, _Seen(pid, _STARTED, name=name), elsewhere)


def _note_open(uses: ProcessUses, folder: str, seen: _Seen, elsewhere: Translation | None) -> None:
    descriptors = f"{folder}/fd"
    try:
        numbers = os.listdir(descriptors)  # noqa: PTH208
    except OSError:
        return
    for number in numbers:
        place = f"{descriptors}/{number}"
        path = _link(place)
        if not path.startswith("/") or is_descriptor(path):
            continue
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(os.stat(place).st_mode):  # noqa: PTH116 - thousands of them
                uses.add_path(path.removesuffix(_DELETED), seen, elsewhere)


def _note_arguments(
    uses: ProcessUses,
    arguments: Iterable[str],
    cwd: str,
    seen: _Seen,
    elsewhere: Translation | None,
) -> None:
    """Note the paths and the words of a command line."""
    words, paths = named_in(arguments, cwd)
    for path in paths:
        uses.add_path(path, seen, elsewhere)
    for word in words:
        uses.add_word(word, seen)


def _look_at_runs(uses: ProcessUses) -> None:
    """Note what the runs of quantui that live are about: the model, its adapters, what they made."""
    from quantui.runtime.living_runs import living_runs

    try:
        runs = living_runs()
    except (OSError, ValueError):
        return
    for run in runs:
        title = run.title or "quantui"
        uses.add_path(str(run.directory), _Seen(run.pid, "is this run", run.run_id, title))
        seen = _Seen(run.pid, "is a run of it", run.run_id, title)
        plan = run.state.plan or {}
        about = [plan.get("model"), *(plan.get("adapters") or ())]
        if run.state.ready is not None:
            about.append(run.state.ready.model)
        for step in run.state.steps:
            about += [value for value in step.result.values() if isinstance(value, str)]
            about.append(step.detail)
        for text in about:
            if isinstance(text, str) and text:
                uses.add_word(text, seen)
                if text.startswith("/"):
                    for path in as_paths(text, ""):
                        uses.add_path(path, seen)


def _ancestors(pid: int) -> frozenset[int]:
    """The processes that this one comes from: a shell, ``sudo``, ``uv run`` and so on."""
    found: set[int] = set()
    while pid > 1:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if len(fields) < 2 or not fields[1].isdigit():
            break
        pid = int(fields[1])
        if pid in found:
            break
        found.add(pid)
    return frozenset(found)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - thousands of them
            parts: list[bytes] = []
            while part := file.read(1 << 20):
                parts.append(part)
            return b"".join(parts)
    except OSError:
        return b""


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - thousands of them
    except OSError:
        return ""
