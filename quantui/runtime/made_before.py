"""Which steps of a plan have nothing left to do: their artifacts were made before, or nobody needs what they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.plan import MergeStep, QuantizeStep
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.install_run import needless_installs
from quantui.runtime.merged_copy import spared_steps

if TYPE_CHECKING:
    from quantui.domain.plan import Plan


def made_before(plan: Plan) -> frozenset[str]:
    """The ids of the steps that a run would pass over, as the artifact store is now."""
    store = ArtifactStore()
    spared = spared_steps(plan, store)
    made = {
        step.id
        for step in plan.steps
        if isinstance(step, MergeStep | QuantizeStep)
        and not step.recreate
        and not step.to_folder
        and store.find(step.artifact) is not None
    }
    return frozenset(spared | made | needless_installs(plan, store, spared))
