"""What takes the disk, from a script: listed, deleted after a plan, verified."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import DeletionReport, Kept, outermost, plan_deletion
from quantui.domain.caches.filters import parse_filter
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.naming import pick, told_apart
from quantui.domain.caches.verification import Verified
from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from quantui.domain.caches.deletion import DeletionEvent, DeletionPlan
    from quantui.domain.caches.verification import VerificationEvent

_CHECKED = frozenset({Kind.HUB, Kind.MERGED, Kind.QUANTIZED, Kind.FOLDER})


def list_cache(
    filter: str = "",
    *,
    kinds: Collection[str] = (),
) -> list[CacheItem]:
    """Everything that takes the disk: Hub caches, merged and quantized models, engines, runs, added folders.

    Example::

        from quantui import list_cache

        for item in list_cache("size>10GB used>30d"):
            print(item.kind, item.name, item.use.on_disk, item.use.frees)

    Args:
        filter: Words that must all hold, as `quantui cache ls` takes them: ``size>10GB used>30d kind=merged llama``.
        kinds: Only these: ``"hub"``, ``"merged"`` ... (:class:`~quantui.domain.caches.items.Kind`); all where empty.
            Revisions of Hub repositories are listed only when ``"revision"`` is among them, or in the filter.

    Returns:
        The things, the largest first. Sizes are bytes; times are seconds since the epoch, None: unknown.

    Raises:
        QuantuiError: A filter or a kind that is not understood, or settings that are wrong (exit code 2).
    """
    wanted = parse_filter(filter)
    only = _kinds(kinds)
    revisions = Kind.REVISION in only or any(term.key == "kind" for term in wanted.terms)
    now = time.time()
    found = [
        item
        for item in _everything().values()
        if (not only or item.kind in only)
        and (revisions or item.kind is not Kind.REVISION)
        and wanted.matches(item, now)
    ]
    return sorted(found, key=lambda item: -item.use.on_disk)


def free_cache(
    what: str | CacheItem | Iterable[str | CacheItem],
    *,
    to_trash: bool = False,
    dry_run: bool = False,
    on_event: Callable[[DeletionEvent], object] | None = None,
) -> DeletionReport | DeletionPlan:
    """Delete things from the disk, as `quantui cache rm --yes` does.

    Example::

        from quantui import free_cache, list_cache

        print(free_cache("owner/llama", dry_run=True).frees)
        report = free_cache(list_cache("kind=merged used>30d"))
        print(report.freed, [(kept.item.name, kept.why) for kept in report.kept])

    Args:
        what: Names, paths and filters as `quantui cache rm` takes them, or items that :func:`list_cache` gave. Several
            names each mean one thing; several filters must all hold. Nothing given deletes nothing.
        to_trash: Move them to the trash, from where `quantui cache undo` brings them back.
        dry_run: Give the plan and touch nothing.
        on_event: Called in this thread with every :class:`~quantui.domain.caches.deletion.DeletionEvent`. What it
            raises stops the deletion and is raised here.

    Returns:
        The report: what went, what stayed and why, bytes really freed. With ``dry_run`` the plan.

    Raises:
        QuantuiError: A name that nothing has (exit code 5) or that means several things, a filter that is not
            understood (2). What may not be deleted, as what a process uses, is no error: it is in ``kept``.
    """
    from quantui.runtime.caches.deleting import delete

    items = _everything()
    plan = plan_deletion(_meant(what, items), items, to_trash=to_trash)
    if dry_run:
        return plan
    report = DeletionReport((), (), 0)
    if plan.goes:
        for event in delete(plan):
            if on_event is not None:
                on_event(event)
            if isinstance(event, DeletionReport):
                report = event
    stayed = tuple(Kept(one.item, one.why) for one in plan.stays)
    return DeletionReport(report.deleted, (*stayed, *report.kept), report.freed, report.cancelled)


def verify_cache(
    what: str | CacheItem | Iterable[str | CacheItem] = (),
    *,
    on_event: Callable[[VerificationEvent], object] | None = None,
) -> list[Verified]:
    """Read things to the end and compare them with the hashes they should have, as `quantui cache verify` does.

    Example::

        from quantui import verify_cache

        broken = [found for found in verify_cache("owner/llama") if found.damaged]

    Args:
        what: As in :func:`free_cache`; default: every model.
        on_event: Called in this thread with every event. What it raises stops the check and is raised here.

    Returns:
        What was found of each thing.

    Raises:
        QuantuiError: As :func:`free_cache` does for names and filters.
    """
    from quantui.runtime.caches.verifying import verify

    items = _everything()
    chosen: Iterable[CacheItem] = _meant(what, items)
    if isinstance(what, tuple) and not what:
        chosen = [item for item in items.values() if item.kind in _CHECKED]
    found = []
    for event in verify(outermost(chosen)):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Verified):
            found.append(event)
    return found


def _everything() -> Mapping[str, CacheItem]:
    from quantui.runtime.caches.inventory import collect

    return collect().items


def _kinds(names: Collection[str]) -> frozenset[Kind]:
    known = {str(kind): kind for kind in Kind}
    each = (names,) if isinstance(names, str) else names
    for name in each:
        if str(name) not in known:
            raise QuantuiError(
                "cache.unknown-kind",
                f"There is no kind {name!r}.",
                fix=f"Kinds: {', '.join(known)}.",
            )
    return frozenset(known[str(name)] for name in each)


def _meant(
    what: str | CacheItem | Iterable[str | CacheItem], items: Mapping[str, CacheItem]
) -> list[CacheItem]:
    """The things as they are now; of an item that is gone meanwhile, nothing."""
    each = [what] if isinstance(what, str | CacheItem) else list(what)
    chosen = [items[one.path] for one in each if isinstance(one, CacheItem) and one.path in items]
    words = told_apart(one for one in each if isinstance(one, str))
    if words.names or words.filter.terms:
        chosen += pick(items, words, now=time.time())
    return chosen
