"""Things on disk, plans and what happens to them as JSON: keys are only ever added. Sizes are bytes, null is unknown.

Paths and names may hold what is not UTF-8: it is replaced, as on a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.caches.deletion import Deleted, Deleting, DeletionProgress, Kept
from quantui.domain.caches.verification import Verifying

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.caches.deletion import DeletionEvent, DeletionPlan
    from quantui.domain.caches.items import CacheDisk, CacheItem, ScanProblem
    from quantui.domain.caches.pruning import Shortfall
    from quantui.domain.caches.verification import VerificationEvent, Verified


def item_json(item: CacheItem) -> dict[str, Any]:
    """A thing with all that is known of it."""
    again = item.rebuild
    return {
        "kind": str(item.kind),
        "name": _text(item.name),
        "path": _text(item.path),
        "root": _text(item.root),
        "parent": None if item.parent is None else _text(item.parent),
        "detail": _text(item.detail),
        "bytes_on_disk": item.use.on_disk,
        "frees_bytes": item.use.frees,
        "shared_bytes": item.use.shared,
        "apparent_bytes": item.use.apparent,
        "files": item.files,
        "used_at": item.used_at,
        "made_at": item.made_at,
        "made_from": [_text(one) for one in item.made_from],
        "rebuild": again
        and {
            "possible": again.possible,
            "words": _text(again.words),
            "seconds": again.seconds,
            "download_bytes": again.download,
        },
        "profiles": [_text(one) for one in item.profiles],
        "users": [
            {"pid": use.pid, "name": _text(use.name), "how": use.how, "run_id": use.run_id}
            for use in item.users
        ],
        "keep": _text(item.keep),
        "trashable": item.trashable,
        "detached": item.detached,
    }


def problem_json(problem: ScanProblem) -> dict[str, str]:
    """A place that could not be read."""
    return {"path": _text(problem.path), "what": _text(problem.what), "fix": _text(problem.fix)}


def disk_json(disk: CacheDisk) -> dict[str, Any]:
    """A file system."""
    return {
        "roots": [_text(root) for root in disk.roots],
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
    }


def plan_json(
    plan: DeletionPlan,
    whys: Mapping[str, str] | None = None,
    shortfalls: tuple[Shortfall, ...] = (),
) -> dict[str, Any]:
    """A plan, the first line of what `rm` and `prune` tell; ``whys``: why each was chosen, by path."""
    return {
        "type": "plan",
        "frees_bytes": plan.frees,
        "shared_bytes": plan.shared,
        "to_trash": plan.to_trash,
        "goes": [{**item_json(item), "why": (whys or {}).get(item.path, "")} for item in plan.goes],
        "stays": [{**item_json(one.item), "why": _text(one.why)} for one in plan.stays],
        "shortfalls": [
            {"goal": _text(one.goal), "missing_bytes": one.missing, "why": _text(one.why)}
            for one in shortfalls
        ],
    }


def deletion_json(event: DeletionEvent) -> dict[str, Any]:
    """What happens while things are deleted, and the report at the end."""
    if isinstance(event, Deleting):
        return {"type": "deleting", **_which(event.item)}
    if isinstance(event, DeletionProgress):
        return {
            "type": "progress",
            **_which(event.item),
            "files": event.files,
            "freed_bytes": event.freed,
        }
    if isinstance(event, Deleted):
        return {
            "type": "deleted",
            **_which(event.item),
            "freed_bytes": event.freed,
            "files": event.files,
            "trashed": _text(event.trashed),
        }
    if isinstance(event, Kept):
        return {
            "type": "kept",
            **_which(event.item),
            "why": _text(event.why),
            "freed_bytes": event.freed,
        }
    return {
        "type": "report",
        "freed_bytes": event.freed,
        "cancelled": event.cancelled,
        "deleted": [_which(one.item) for one in event.deleted],
        "kept": [{**_which(one.item), "why": _text(one.why)} for one in event.kept],
    }


def verification_json(event: VerificationEvent) -> dict[str, Any]:
    """What happens while things are verified."""
    if isinstance(event, Verifying):
        return {
            "type": "verifying",
            **_which(event.item),
            "done_bytes": event.done_bytes,
            "total_bytes": event.total_bytes,
        }
    return verified_json(event)


def verified_json(event: Verified) -> dict[str, Any]:
    """What was found of one thing."""
    return {
        "type": "verified",
        **_which(event.item),
        "state": str(event.state),
        "checked_bytes": event.checked_bytes,
        "findings": [
            {
                "what": _text(one.what),
                "path": _text(one.path),
                "fix": _text(one.fix),
                "counts": str(one.counts),
            }
            for one in event.findings
        ],
    }


def _which(item: CacheItem) -> dict[str, str]:
    return {"kind": str(item.kind), "name": _text(item.name), "path": _text(item.path)}


def _text(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
