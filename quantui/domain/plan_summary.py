"""What a plan is about, small enough to stand at the head of a run's record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantui.domain.plan import Plan


def plan_summary(plan: Plan) -> dict[str, Any]:
    """Names, method, engine and what was predicted, as JSON holds them.

    ``predicted_bytes`` is of one GPU, or of RAM on the CPU; it and ``context`` (tokens) are None if nothing is served.
    """
    served = plan.step("serve") is not None
    draft, estimate = plan.draft, plan.estimate
    return {
        "model": plan.model.ref,
        "revision": plan.model.revision,
        "adapters": [adapter.ref for adapter in plan.adapters],
        "method": draft.quantization.method,
        "engine": plan.engine.name,
        "vllm": plan.engine.vllm_version,
        "on_cpu": plan.engine.on_cpu,
        "gpus": list(draft.serve.visible_devices),
        "tensor_parallel": draft.serve.tensor_parallel,
        "context": estimate.max_model_len if served else None,
        "predicted_bytes": estimate.total_bytes if served else None,
    }
