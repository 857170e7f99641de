"""What a profile records of the moment it is saved, from the plan's facts and the run's figures. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui import __version__
from quantui.domain.draft import Draft, Recorded
from quantui.domain.plan import QuantizeStep
from quantui.domain.producing.producers import producers

if TYPE_CHECKING:
    from quantui.domain.plan import Plan
    from quantui.domain.run_state import RunState
    from quantui.engines.planning import Facts


def with_record(
    draft: Draft, facts: Facts, plan: Plan, state: RunState | None, saved_at: str
) -> Draft:
    """``draft`` with its ``[recorded]`` table filled; ``saved_at`` is the time in UTC as ISO 8601."""
    step = plan.step("quantize")
    made = step if isinstance(step, QuantizeStep) else None
    measured = {item.name: item.value for item in state.measured} if state else {}
    recorded = Recorded(
        saved_at=saved_at,
        quantui_version=__version__,
        base_revision=facts.model.revision,
        base_fingerprint=facts.model.fingerprint,
        adapter_revision=_joined([adapter.revision for adapter in facts.adapters]),
        adapter_fingerprint=_joined([adapter.fingerprint for adapter in facts.adapters]),
        producer=None if made is None else _producer(made, facts),
        recipe=None if made is None else f"{made.recipe.method}: {made.recipe.text}",
        calibration_fingerprint=_calibration(made, facts),
        engine=facts.engine.name,
        vllm_version=facts.engine.vllm_version,
        hardware=facts.hardware.fingerprint(),
        max_model_len=plan.estimate.max_model_len,
        expected_weight_bytes=plan.estimate.weight_bytes,
        measured_weight_bytes=int(measured["weights"]) if "weights" in measured else None,
        kv_cache_tokens=int(measured["KV cache"]) if "KV cache" in measured else None,
        load_seconds=round(state.ready.seconds, 1) if state and state.ready else None,
    )
    return replace(draft, recorded=recorded)


def differences(draft: Draft, facts: Facts, plan: Plan) -> list[str]:
    """What is not as it was when the profile was saved, in words."""
    was, now = draft.recorded, with_record(draft, facts, plan, None, "").recorded
    names = {
        "base_revision": "base revision",
        "base_fingerprint": "base content",
        "adapter_revision": "adapter revision",
        "adapter_fingerprint": "adapter content",
        "producer": "producer",
        "recipe": "recipe",
        "calibration_fingerprint": "calibration texts",
        "engine": "engine",
        "vllm_version": "vLLM",
        "hardware": "hardware",
        "max_model_len": "context",
        "expected_weight_bytes": "expected weights in bytes",
    }
    return [
        f"{title} was {getattr(was, name)}, is {getattr(now, name)}"
        for name, title in names.items()
        if getattr(was, name) is not None and getattr(was, name) != getattr(now, name)
    ]


def _producer(step: QuantizeStep, facts: Facts) -> str:
    """The library that makes the checkpoint, and its version: ``llmcompressor 0.14.0.1``."""
    package = producers()[step.recipe.producer].package
    versions = facts.quantize_engine.versions if facts.quantize_engine else {}
    return f"{package} {versions.get(package, 'unknown')}"


def _calibration(step: QuantizeStep | None, facts: Facts) -> str | None:
    if step is None or not step.recipe.needs_data or facts.calibration is None:
        return None
    return facts.calibration.fingerprint


def _joined(values: list[str | None]) -> str | None:
    """What is known of several adapters as one value; None when nothing is known of any."""
    return " + ".join(value or "-" for value in values) if any(values) else None
