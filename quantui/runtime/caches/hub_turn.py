"""One repository's turn in a deletion: the things of a plan in it, and what each of them holds, as it is now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import Deleted, Kept
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.errors import QuantuiError
from quantui.runtime.caches.guards import changed
from quantui.runtime.caches.hub_holders import Ledger
from quantui.runtime.caches.hub_reading import read_repository
from quantui.runtime.caches.hub_repository import PASSED_OVER, TYPES
from quantui.runtime.caches.hub_rows import repository_items
from quantui.runtime.caches.hub_store import SharedStore
from quantui.runtime.caches.mounts import mounts
from quantui.runtime.caches.roots import hub_roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from quantui.runtime.caches.hub_repository import Blob, Repository, Revision
    from quantui.runtime.caches.places import Place

BEGUN = "a download of it has begun"


class Turn:
    """The things of one repository that are to go. ``root`` and ``repo``: paths without links; ``scan``: what is there.

    ``items`` shrinks as things settle otherwise. ``names``: what a command line calls the repository.
    """

    def __init__(
        self, root: str, repo: str, scan: Repository, things: Mapping[str, tuple[str, CacheItem]]
    ) -> None:
        self.root = root
        self.repo = repo
        self._below = {path: below for path, (below, _) in things.items()}
        self.name = os.path.basename(repo)  # noqa: PTH119 - paths are text here
        self.scan = scan
        self.items = [item for _, item in things.values()]
        self.names = (scan.id,)
        self._other_names = _names(f"{repo}/blobs") - set(scan.blobs)
        self._revisions = {f"snapshots/{one.name}": one for one in scan.revisions}

    @property
    def whole(self) -> bool:
        """Whether the repository itself is to go."""
        return any(item.kind is Kind.HUB for item in self.items)

    def settled(self) -> Iterator[Deleted | Kept]:
        """What is gone already, has changed since it was looked at, or may not go: it leaves the turn."""
        fresh = {
            one.path[len(self.repo) + 1 :]: one
            for one in repository_items(self.scan, self.root, Ledger())
        }
        for item in list(self.items):
            now = fresh.get(self._below[item.path])
            if now is None:
                self.items.remove(item)
                yield Kept(item, changed().what) if os.path.lexists(item.path) else Deleted(item, 0)
            elif (
                now.kind is not item.kind
                or (item.stamp and item.stamp != now.stamp)
                or (
                    not item.stamp
                    and (item.files, item.use.apparent)
                    != (
                        now.files,
                        now.use.apparent,
                    )
                )
            ):
                yield self.drop(item, changed().what)
            elif now.keep:
                yield self.drop(item, now.keep)
            elif self.scan.elsewhere and item.kind is not Kind.HUB:
                yield self.drop(item, "its repository keeps its files elsewhere, behind a link")

    def drop(self, item: CacheItem, why: str) -> Kept:
        """Leave a thing out of the turn."""
        self.items.remove(item)
        return Kept(item, why)

    def commits(self) -> dict[str, frozenset[str]]:
        """The doomed revisions, and the paths of what each refers to as huggingface_hub says them."""
        return {
            one.name: frozenset(
                {blob.path for blob in one.blobs.values()} | set(one.outside) | _plain_files(one)
            )
            for one in self._doomed_revisions()
        }

    def leads_out(self) -> bool:
        """Whether a doomed revision is a link, or links to what is no blob of its repository."""
        return any(one.leads_out for one in self._doomed_revisions())

    def snapshots(self) -> list[str]:
        """The folders of the doomed revisions."""
        return [one.path for one in self._doomed_revisions()]

    def refs(self) -> list[str]:
        """Branches and tags that name doomed revisions; of a whole repository all."""
        if self.whole:
            return list(self.scan.refs)
        return [ref for one in self._doomed_revisions() for ref in one.refs]

    def held_by(self, item: CacheItem) -> list[str]:
        """Paths that a process may have open while it uses the thing."""
        held: list[str] = []
        for blob in self._blobs_of(item):
            held.append(blob.path)
            links = blob.payload.links if blob.payload is not None else None
            if blob.payload is not None and links is not None and links <= self._own_paths():
                held.append(blob.payload.path)
        return held

    def blob_names(self, item: CacheItem) -> set[str]:
        """Names in ``blobs`` that go with the thing."""
        return {os.path.basename(blob.path) for blob in self._blobs_of(item)}  # noqa: PTH119

    def blobs_by_size(self) -> list[str]:
        """Names of all blobs that may go, the largest first."""
        blobs = {blob.path: blob for item in self.items for blob in self._blobs_of(item)}
        ordered = sorted(blobs.values(), key=lambda blob: -blob.size)
        return [os.path.basename(blob.path) for blob in ordered]  # noqa: PTH119

    def needs_blobs(self, item: CacheItem) -> bool:
        """Whether the thing is gone only when blobs are that nothing else refers to."""
        return any(
            os.path.lexists(blob.path) and blob.revisions <= 1 for blob in self._blobs_of(item)
        )

    def payload_files(self) -> list[str]:
        """Shared blobs that the turn may free, with their lists."""
        found: list[str] = []
        for item in self.items:
            for blob in self._blobs_of(item):
                if blob.payload is not None:
                    found += [blob.payload.path, f"{blob.payload.path}.refs"]
        return found

    def owner_of(self, path: str) -> str:
        """The path of the thing that a file belongs to; "" for none alone."""
        if self.whole:
            return self.items[-1].path
        for item in reversed(self.items):
            if path == item.path or path.startswith(f"{item.path}/"):
                return item.path
            for blob in self._blobs_of(item):
                payload = blob.payload.path if blob.payload is not None else ""
                if path == blob.path or (payload and path in {payload, f"{payload}.refs"}):
                    return item.path
        return ""

    def news(self) -> str:
        """Why no blob may go now, after the snapshots went: somebody began to download; "" where nobody did.

        A snapshot's folder is the first thing that huggingface_hub makes. Two listings: asked before every few blobs.
        """
        for name in _names(f"{self.repo}/snapshots"):
            before = self._revisions.get(f"snapshots/{name}")
            try:
                now = os.lstat(f"{self.repo}/snapshots/{name}")
            except FileNotFoundError:
                continue
            if before is None and name not in PASSED_OVER:
                return BEGUN
            if before is not None and not os.path.samestat(before.folder, now):
                return BEGUN
        if self.whole and _names(f"{self.repo}/blobs") - set(self.scan.blobs) - self._other_names:
            return BEGUN
        return ""

    def unreferenced_now(self) -> list[str]:
        """The doomed blobs that no snapshot refers to any more, looked at now."""
        now = self._now()
        if now is None or now.elsewhere:
            return []
        doomed = {blob.path for item in self.items for blob in self._blobs_of(item)}
        free = [blob for blob in now.blobs.values() if blob.path in doomed and not blob.revisions]
        return [blob.path for blob in sorted(free, key=lambda blob: -blob.size)]

    def whole_goes(self) -> bool:
        """Whether the repository's folder may go: all of it was to, or nothing is left in it, and nothing is new."""
        now = self._now()
        if now is None:
            return False
        if self.whole and (now.elsewhere or now.damage):
            known = {one.name for one in self.scan.revisions}
            new = [one for one in now.revisions if one.name not in known or self._is_new(one)]
            return not new and set(now.refs) <= set(self.scan.refs)
        if now.revisions or now.refs:
            return False
        return not now.blobs

    def _now(self) -> Repository | None:
        try:
            return read_repository(self.repo, SharedStore(self.root), mounts())
        except OSError:
            return None

    def _is_new(self, revision: Revision) -> bool:
        """Whether its folder is another than it was; one that could not be removed is the same still."""
        before = self._revisions.get(f"snapshots/{revision.name}")
        return before is None or not os.path.samestat(before.folder, revision.folder)

    def _doomed_revisions(self) -> list[Revision]:
        if self.whole:
            return list(self.scan.revisions)
        found = [self._revisions.get(self._below[item.path]) for item in self.items]
        return [one for one in found if one is not None]

    def _blobs_of(self, item: CacheItem) -> list[Blob]:
        if item.kind is Kind.HUB:
            return list(self.scan.blobs.values())
        if item.kind is Kind.REVISION:
            revision = self._revisions.get(self._below[item.path])
            return [] if revision is None else list(revision.blobs.values())
        blob = self.scan.blobs.get(self._below[item.path].removeprefix("blobs/"))
        return [] if blob is None else [blob]

    def _own_paths(self) -> frozenset[str]:
        return frozenset(blob.path for blob in self.scan.blobs.values())


def read_turn(group: Sequence[tuple[CacheItem, Place]]) -> Turn | None:
    """The turn of things of one repository; None where its folder is gone. Raises ``cache.outside`` and OSError."""
    place = group[0][1]
    for item, one in group:
        if not _is_of_hub(item, one):
            raise QuantuiError(
                "cache.outside",
                f"{item.path} is no part of a cache of the Hub.",
                fix="Look with: quantui cache ls",
            )
    repo = f"{place.root}/{place.parts[0]}"
    try:
        scan = read_repository(repo, SharedStore(place.root), mounts())
    except FileNotFoundError:
        return None
    things = {item.path: ("/".join(one.parts[1:]), item) for item, one in group}
    return Turn(place.root, repo, scan, things)


def _is_of_hub(item: CacheItem, place: Place) -> bool:
    """Whether a thing lies where huggingface_hub's caches have such things."""
    shapes = {
        Kind.HUB: ((), 1),
        Kind.REVISION: (("snapshots",), 3),
        Kind.INCOMPLETE: (("blobs",), 3),
    }
    between, length = shapes[item.kind]
    is_root = place.root in {str(root) for root in hub_roots()}
    is_repo = place.parts[0].partition("--")[0] in TYPES and "--" in place.parts[0]
    return is_root and is_repo and len(place.parts) == length and place.parts[1:-1] == between


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - paths are text here
    except OSError:
        return set()


def _plain_files(revision: Revision) -> set[str]:
    found: set[str] = set()
    for folder, folders, names in os.walk(revision.path):
        del folders
        for name in names:
            path = f"{folder}/{name}"
            if not os.path.islink(path):  # noqa: PTH114
                found.add(path)
    return found
