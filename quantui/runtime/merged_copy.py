"""The merged 16-bit model once a quantized one was made from it: not needed any more, and often large."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.domain.events import Notice, RunEvent
from quantui.domain.formatting import format_bytes
from quantui.domain.plan import DownloadStep, MergeStep, QuantizeStep
from quantui.runtime.artifacts import allocated_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.plan import Plan
    from quantui.runtime.artifacts import ArtifactStore


def spared_steps(plan: Plan, store: ArtifactStore) -> frozenset[str]:
    """The steps that a quantized model which was made before makes needless: downloads and the merge."""
    quantize = plan.step("quantize")
    if not isinstance(quantize, QuantizeStep) or quantize.recreate or quantize.to_folder:
        return frozenset()
    if store.find(quantize.artifact) is None:
        return frozenset()
    return frozenset(
        step.id
        for step in plan.steps
        if isinstance(step, DownloadStep) or (isinstance(step, MergeStep) and not step.recreate)
    )


def after_quantizing(plan: Plan, store: ArtifactStore, run_id: str) -> Iterator[RunEvent]:
    """Delete the merged model where ``cleanup.after_run`` asks for it, else say how large it is and how to free it.

    ``run_id``: the run's own, which uses it no more.
    """
    merge = plan.step("merge")
    if not isinstance(merge, MergeStep) or store.find(merge.artifact) is None:
        return
    if plan.draft.cleanup.after_run == "delete-merged":
        yield _delete(merge, store, run_id, "quantize", "the quantized one is made and proven")
        return
    path = store.path_of(merge.artifact)
    text = (
        f"The merged 16-bit model takes {format_bytes(allocated_bytes(path))}; the quantized one does not need it. "
        f'To free that: quantui cache rm {path.name}, or set cleanup.after_run = "delete-merged".'
    )
    yield Notice(at=time.time(), step="quantize", level="info", text=text)


def after_serving(plan: Plan, store: ArtifactStore, run_id: str) -> Iterator[RunEvent]:
    """Delete the merged model where ``cleanup.after_run`` asks for it, once the server that used it has stopped."""
    merge = plan.step("merge")
    if (
        plan.draft.cleanup.after_run == "delete-merged"
        and isinstance(merge, MergeStep)
        and not merge.to_folder
        and store.find(merge.artifact) is not None
    ):
        yield _delete(merge, store, run_id, "merge", "the server has stopped")


def _delete(merge: MergeStep, store: ArtifactStore, run_id: str, step: str, why: str) -> Notice:
    """Delete the merged model, unless somebody else needs it; says what that gave back, or why it stays."""
    path = store.path_of(merge.artifact)
    stays, freed = "", 0
    try:
        # Another run that makes it, or goes to use it, holds the lock: nobody waits for that here.
        with store.exclusive(merge.artifact, lambda: True):
            stays = _needed_by(path, run_id)
            if not stays:
                freed = store.delete(merge.artifact)
    except QuantuiError:
        stays = "another run is making or taking it"
    if stays:
        text = f"Kept the merged 16-bit model {path.name}: {stays}."
        return Notice(at=time.time(), step=step, level="info", text=text)
    text = f"Deleted the merged 16-bit model, {format_bytes(freed)} freed: {why}."
    return Notice(at=time.time(), step=step, level="info", text=text)


def _needed_by(path: Path, run_id: str) -> str:
    """Who else uses a merged model: a process, another run; "" for nobody."""
    from quantui.runtime.caches.processes import process_uses

    uses = [
        use
        for use in process_uses().of(str(path))
        if use.run_id != run_id and use.pid != os.getpid()
    ]
    if uses:
        first = uses[0]
        return f"in use by {first.name} (process {first.pid}), which {first.how}"
    profile = _profile_that_keeps(path)
    return f"the profile {profile} uses it, and keeps it" if profile else ""


def _profile_that_keeps(path: Path) -> str:
    """The file of a known profile that uses a merged model and does not have it deleted itself; "" for none."""
    from quantui.domain.caches.items import CacheItem
    from quantui.runtime.caches.artifact_items import artifact_items
    from quantui.runtime.caches.profile_uses import ProfileUses
    from quantui.runtime.profile_file import load_profile

    found = (item for item in artifact_items(lambda: False) if isinstance(item, CacheItem))
    items = {item.path: item for item in found}
    item = items.get(str(path))
    for file in ProfileUses(items).of(item) if item is not None else ():
        with contextlib.suppress(QuantuiError, OSError):
            if load_profile(Path(file)).cleanup.after_run != "delete-merged":
                return file
    return ""
