"""huggingface_hub's own plan of a deletion for one repository, checked, and carried out in phases.

Its DeleteCacheStrategy takes refs, snapshots, then blobs. Executed at once, a kill leaves snapshots whose blobs are
gone; here what makes a snapshot a model goes first, as a strategy of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.runtime.caches.removing import WHOLE_BY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from huggingface_hub import DeleteCacheStrategy

_ALSO_WHOLE_BY = (".index.json", ".gguf", "tokenizer_config.json", "processor_config.json")


_FILLED = {"blobs", "snapshots", "refs", "trees"}
"""The folders of a repository that every download writes into."""


class HubPlans:
    """Strategies by root; a cache is scanned by huggingface_hub once for all things of a plan."""

    def __init__(self) -> None:
        self._scanned: dict[str, Any] = {}

    def strategy(
        self, root: str, repo: str, commits: dict[str, frozenset[str]]
    ) -> DeleteCacheStrategy | None:
        """For revisions of the repository in the folder ``repo``; None where huggingface_hub does not list it so.

        ``commits``: the revisions, and the paths of the blobs that each is known to refer to. Narrowed to the one
        repository: two may hold the same commit, and ``delete_revisions`` takes the first it meets. Empty, to be
        filled with :func:`narrowed`, where huggingface_hub cannot read the cache.
        """
        for again in (False, True):
            info = self._info(root, again=again)
            if info is None:
                return empty_strategy(root)
            ours = [one for one in info.repos if str(one.repo_path) == repo]
            if len(ours) != 1:
                continue
            there = {one.commit_hash: one for one in ours[0].revisions}
            if all(
                commit in there and {str(file.blob_path) for file in there[commit].files} == blobs
                for commit, blobs in commits.items()
            ):
                narrowed = dataclasses.replace(info, repos=frozenset(ours))
                found: DeleteCacheStrategy = narrowed.delete_revisions(*commits)
                return found
        return None

    def _info(self, root: str, *, again: bool) -> Any | None:  # noqa: ANN401 - HFCacheInfo
        """What huggingface_hub finds; None where one unreadable repository keeps it from reading any."""
        from huggingface_hub import scan_cache_dir

        if again or root not in self._scanned:
            try:
                with quiet():
                    self._scanned[root] = scan_cache_dir(root)
            except (OSError, ValueError, RuntimeError):
                # A folder that may not be read, a branch's file that is no text, a loop of links.
                self._scanned[root] = None
        return self._scanned[root]


def empty_strategy(root: str) -> DeleteCacheStrategy:
    """A strategy that deletes nothing, to be filled with :func:`narrowed`."""
    from huggingface_hub import DeleteCacheStrategy

    known: dict[str, Any] = {
        "expected_freed_size": 0,
        "blobs": frozenset(),
        "refs": frozenset(),
        "repos": frozenset(),
        "snapshots": frozenset(),
    }
    if any(field.name == "cache_dir" for field in dataclasses.fields(DeleteCacheStrategy)):
        # Since huggingface_hub 2: shared blobs that lose their last reference go with it.
        known["cache_dir"] = Path(root)
    return DeleteCacheStrategy(**known)


def narrowed(
    strategy: DeleteCacheStrategy,
    *,
    refs: Iterable[str] = (),
    snapshots: Iterable[str] = (),
    blobs: Iterable[str] = (),
    repos: Iterable[str] = (),
) -> DeleteCacheStrategy:
    """``strategy`` with these paths alone."""
    return dataclasses.replace(
        strategy,
        expected_freed_size=0,
        refs=frozenset(map(Path, refs)),
        snapshots=frozenset(map(Path, snapshots)),
        blobs=frozenset(map(Path, blobs)),
        repos=frozenset(map(Path, repos)),
    )


def leftovers(repo: str, commits: Iterable[str]) -> list[str]:
    """What huggingface_hub keeps beside blobs, snapshots and refs: notes of missing files, listings of ``commits``."""
    found = [f"{repo}/trees/{commit}.json" for commit in commits]
    with contextlib.suppress(OSError), os.scandir(repo) as entries:
        found += [entry.path for entry in entries if entry.name not in _FILLED]
    return [path for path in found if os.path.lexists(path) and not os.path.islink(path)]  # noqa: PTH114


def remove_empty(repo: str) -> None:
    """Remove the folder of a repository and those in it as far as they are empty; links are not followed."""
    for folder, _, _ in os.walk(repo, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106


def execute(strategy: DeleteCacheStrategy) -> str:
    """Carry it out; gives the first thing that huggingface_hub could not delete, which it only logs. Never raises."""
    with quiet() as told:
        try:
            strategy.execute()
        except OSError as error:
            told.append(error.strerror or str(error))
    return told[0] if told else ""


def identity_files(snapshot: str) -> list[str]:
    """Files of a snapshot by which programs take it for a model; links are not followed."""
    found: list[str] = []
    if os.path.islink(snapshot):  # noqa: PTH114 - paths are text here
        return found
    for folder, _, names in os.walk(snapshot):
        found += [
            f"{folder}/{name}"
            for name in names
            if name in WHOLE_BY or name.endswith(_ALSO_WHOLE_BY)
        ]
    return found


def is_plain(path: str, root: str) -> bool:
    """Whether no folder on the way from ``root`` to ``path`` is a link."""
    above = os.path.dirname(path)  # noqa: PTH120
    while above != root:
        try:
            if not stat.S_ISDIR(os.lstat(above).st_mode):
                return False
        except OSError:
            return False
        higher = os.path.dirname(above)  # noqa: PTH120
        if higher == above:
            return False
        above = higher
    return True


def refs_of(repo: str, refs: Collection[str], commits: Collection[str]) -> list[str]:
    """The files of those branches and tags that still name one of ``commits``: one may have moved on meanwhile."""
    found: list[str] = []
    for name in refs:
        path = f"{repo}/refs/{name}"
        with contextlib.suppress(OSError, ValueError):
            if is_plain(path, repo) and Path(path).read_text(encoding="utf-8") in commits:
                found.append(path)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep huggingface_hub's warnings from the terminal; gives what they say."""
    told: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            told.append(record.getMessage())
        return False

    logger = logging.getLogger("huggingface_hub.utils._cache_manager")
    logger.addFilter(keep)
    try:
        yield told
    finally:
        logger.removeFilter(keep)
