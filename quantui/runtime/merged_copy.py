"""The merged 16-bit model once a quantized one was made from it: not needed any more, and often large."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

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


def after_quantizing(plan: Plan, store: ArtifactStore) -> Iterator[RunEvent]:
    """Delete the merged model where ``cleanup.after_run`` asks for it, else say how large it is and how to free it."""
    merge = plan.step("merge")
    if not isinstance(merge, MergeStep) or store.find(merge.artifact) is None:
        return
    path = store.path_of(merge.artifact)
    size = format_bytes(allocated_bytes(path))
    if plan.draft.cleanup.after_run == "delete-merged":
        store.delete(merge.artifact)
        text = f"Deleted the merged 16-bit model, {size}: the quantized one is made and proven."
    else:
        text = (
            f"The merged 16-bit model takes {size}; the quantized one does not need it. To free that: "
            f'delete {path}, or set cleanup.after_run = "delete-merged".'
        )
    yield Notice(at=time.time(), step="quantize", level="info", text=text)
