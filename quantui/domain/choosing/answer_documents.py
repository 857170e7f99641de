"""The JSON form of what `fit` and `recommend` answer: documented in the README, changed only by adding keys.

Sizes are whole bytes, of one GPU unless the key says otherwise, and of the RAM where the CPU serves. Unknown is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.choosing.recommendation import (
        Choice,
        Cost,
        NearestMiss,
        Recommendation,
        Refusal,
    )
    from quantui.domain.choosing.variants import Variant
    from quantui.domain.fitting.fit import Figure, Fit
    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.domain.performance.quality import Quality
    from quantui.domain.performance.speed import Speed

SCHEMA = 1


def model_part(model: ModelSpec, shape: ModelShape) -> dict[str, Any]:
    """Which model it is about."""
    return {
        "ref": model.ref,
        "revision": model.revision,
        "source": model.source,
        "architecture": shape.architecture,
        "model_type": shape.model_type,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "dtype": shape.dtype,
        "quantization": shape.quantization,
        "context_length": shape.context_length,
        "complete": model.complete,
        "notes": list(shape.notes),
    }


def adapter_part(adapter: AdapterSpec | None) -> dict[str, Any] | None:
    """Which adapter, null without one."""
    if adapter is None:
        return None
    return {
        "ref": adapter.ref,
        "revision": adapter.revision,
        "rank": adapter.rank,
        "weight_bytes": adapter.weight_bytes,
    }


def hardware_part(
    report: HardwareReport, gpus: Sequence[Gpu], described_by: str | None
) -> dict[str, Any]:
    """The machine, and the GPUs that may be used; none: the CPU serves."""
    host = report.host
    disk = host.disk("artifacts")
    return {
        "simulated": report.simulated,
        "described_by": described_by,
        "on_cpu": not gpus,
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "total_bytes": gpu.total_bytes,
                "free_bytes": gpu.free_bytes,
                "compute_capability": None
                if gpu.compute_capability is None
                else ".".join(map(str, gpu.compute_capability)),
            }
            for gpu in gpus
        ],
        "ram_bytes": host.ram_total_bytes,
        "ram_free_bytes": host.ram_available_bytes,
        "disk_free_bytes": disk.free_bytes if disk else None,
    }


def figure_part(figure: Figure) -> dict[str, Any]:
    """One figure with its band and where it is from."""
    return {
        "bytes": figure.bytes,
        "low": figure.low,
        "high": figure.high,
        "formula": figure.formula,
        "source": figure.source,
    }


def memory_part(fit: Fit) -> dict[str, Any]:
    """What is held where, by the names that scripts read; ``figures`` has the bands and sources."""
    computed = fit.kv_cache_tokens is not None
    return {
        "weights_bytes_per_gpu": fit.weights.bytes or None,
        "kv_cache_bytes_per_gpu": fit.kv_cache.bytes if computed else None,
        "kv_cache_tokens": fit.kv_cache_tokens,
        "kv_bytes_per_token": fit.kv_bytes_per_token,
        "peak_activation_bytes": fit.transient.bytes if computed else None,
        "cuda_graph_bytes": fit.graphs.bytes,
        "context_bytes": fit.context.bytes,
        "lora_bytes": fit.lora.bytes,
        "other_processes_bytes": fit.others.bytes,
        "utilization": fit.utilization,
        "figures": {
            "weights": figure_part(fit.weights),
            "kv_cache": figure_part(fit.kv_cache),
            "peak_activation": figure_part(fit.transient),
            "cuda_graphs": figure_part(fit.graphs),
            "context": figure_part(fit.context),
            "lora": figure_part(fit.lora),
            "other_processes": figure_part(fit.others),
        },
    }


def choice_part(choice: Choice) -> dict[str, Any]:
    """One ranked choice."""
    return {
        "rank": choice.rank,
        "method": choice.method,
        "title": choice.title,
        "verdict": choice.verdict,
        "way": choice.way,
        "ready": choice.ready,
        "needs": choice.needs,
        "tensor_parallel": choice.tensor_parallel,
        "pipeline_parallel": choice.pipeline_parallel,
        "gpus": list(choice.gpus),
        "on_cpu": choice.on_cpu,
        "max_context": choice.fit.max_context,
        "max_users": choice.fit.users,
        "memory": memory_part(choice.fit),
        "speed": speed_part(choice.speed),
        "quality": quality_part(choice.quality),
        "cost": cost_part(choice.cost),
        "serve_adapter": choice.serve_adapter,
        "dtype": choice.support.dtype,
        "variant": variant_part(choice.variant),
        "reasons": list(choice.reasons),
        "cautions": list(choice.cautions),
        "score": round(choice.score, 4),
        "score_parts": {name: round(value, 4) for name, value in choice.parts.items()},
        "score_taken_off": dict(choice.taken),
    }


def refusal_part(refusal: Refusal) -> dict[str, Any]:
    """One method that is not recommended; ``reason`` is the first of ``reasons``."""
    return {
        "method": refusal.method,
        "title": refusal.title,
        "code": refusal.code,
        "reason": refusal.reasons[0] if refusal.reasons else "",
        "reasons": list(refusal.reasons),
        "instead": list(refusal.instead),
        "source": refusal.source,
    }


def speed_part(speed: Speed) -> dict[str, Any]:
    """Tokens a second, of one user and of all; null where the card is not known."""
    return {
        "tokens_per_s_per_user": speed.tokens_per_s_per_user,
        "tokens_per_s_total": speed.tokens_per_s_total,
        "low": speed.low,
        "high": speed.high,
        "relative_to_16bit": speed.relative_to_16bit,
        "regime": speed.regime,
        "basis": speed.basis,
        "formula": speed.formula,
        "source": speed.source,
    }


def quality_part(quality: Quality) -> dict[str, Any]:
    """What the format is expected to lose, percent of the 16-bit model's scores."""
    return {
        "loss_percent": quality.loss_percent,
        "band": quality.band,
        "basis": quality.basis,
        "source": quality.source,
    }


def cost_part(cost: Cost) -> dict[str, Any]:
    """What has to be done first; ``seconds`` null: not known, downloads left out of it."""
    return {
        "seconds": cost.seconds,
        "disk_bytes": cost.disk_bytes,
        "download_bytes": cost.download_bytes,
        "steps": [
            {
                "kind": step.kind,
                "text": step.text,
                "seconds": step.seconds,
                "disk_bytes": step.disk_bytes,
                "source": step.source,
            }
            for step in cost.steps
        ],
    }


def variant_part(variant: Variant | None) -> dict[str, Any] | None:
    """Somebody's quantized checkpoint of the model."""
    if variant is None:
        return None
    return {
        "ref": variant.ref,
        "publisher": variant.publisher,
        "source": variant.source,
        "quant_method": variant.quant_method,
        "bits": variant.bits,
        "downloads": variant.downloads,
        "likes": variant.likes,
        "size_bytes": variant.size_bytes,
        "gated": variant.gated,
        "evidence": list(variant.evidence),
    }


def nearest_part(nearest: NearestMiss | None) -> dict[str, Any] | None:
    """What comes closest when nothing can be recommended."""
    if nearest is None:
        return None
    return {
        "method": nearest.method,
        "title": nearest.title,
        "missing_bytes": nearest.missing_bytes,
        "change": nearest.change,
        "smaller": list(nearest.smaller),
        "memory": memory_part(nearest.fit),
    }


def recommendation_part(found: Recommendation) -> dict[str, Any]:
    """The recommendation itself."""
    advice = found.adapter_advice
    return {
        "use_case": found.use_case,
        "context": found.context,
        "users": found.users,
        "choices": [choice_part(choice) for choice in found.choices],
        "refused": [refusal_part(refusal) for refusal in found.refused],
        "nearest": nearest_part(found.nearest),
        "adapter_advice": None
        if advice is None
        else {
            "mode": advice.mode,
            "reasons": list(advice.reasons),
            "can_merge": advice.can_merge,
            "can_serve_lora": advice.can_serve_lora,
            "source": advice.source,
        },
        "notes": list(found.notes),
    }
