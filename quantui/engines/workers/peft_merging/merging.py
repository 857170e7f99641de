"""Merge module by module: float32 delta, float32 sum, one rounding.

PEFT's ``safe_merge`` rounds the delta to the base's dtype before it adds it, which rounds twice (94 %
of the results are the nearest bfloat16, instead of 99.9994 %). So each module's weights are taken to
float32 around its merge and rounded once after it; more memory than one module needs is never taken.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError, progress
from streaming_merge.refusals import merged_not_finite, no_effect

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from peft_merging.adapter import Adapter
    from peft_merging.proof import Proof


def merge(wrapped: PeftModel, adapter: Adapter, dtype: torch.dtype, proof: Proof) -> Any:  # noqa: ANN401
    """Merge every module of ``wrapped``, record each in ``proof``, and return the plain model.

    All its parameters are of ``dtype`` then.

    Raises:
        WorkerError: ``merge.not-finite``, ``merge.not-mergeable``, ``merge.no-effect``.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = wrapped.base_model.model
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for done, (name, layer) in enumerate(layers, 1):
        _merge_layer(name, layer, dtype, proof)
        progress(done, len(layers), unit="modules", message=name)
    with warnings.catch_warnings():
        # Each module says that it is merged already.
        warnings.simplefilter("ignore")
        try:
            merged = wrapped.merge_and_unload()
        except (NotImplementedError, AttributeError) as error:
            raise _not_mergeable(adapter, error) from error
    with torch.no_grad():
        for parameter in merged.parameters():
            if parameter.is_floating_point() and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
                if not torch.isfinite(parameter.data).all():
                    raise merged_not_finite("a weight of the base", dtype)
    parameters = dict(merged.named_parameters(remove_duplicate=False))
    proof.record_replaced(parameters)
    if not any(proof.delta_norms.values()):
        raise no_effect(adapter.folder)
    return merged


def _merge_layer(name: str, layer: Any, dtype: torch.dtype, proof: Proof) -> None:  # noqa: ANN401
    import torch

    base = layer.get_base_layer()
    plain = name.replace(".base_layer", "").replace(".token_adapter", "")
    before = {
        key: parameter.data
        for key, parameter in base.named_parameters(recurse=False)
        if parameter.is_floating_point()
    }
    parameters = {key: getattr(base, key) for key in before}
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.data = parameter.data.float()
        try:
            layer.merge(safe_merge=True)
        except (NotImplementedError, AttributeError) as error:
            raise _not_mergeable(proof.adapter, error) from error
        except ValueError as error:
            if "NaN" not in str(error):
                raise
            raise merged_not_finite(plain, torch.float32) from error
        for key, parameter in parameters.items():
            delta = parameter.data - before[key].float()
            norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
            del delta
            if norm == 0.0:
                parameter.data = before[key]
                continue
            parameter.data = parameter.data.to(dtype)
            if not torch.isfinite(parameter.data).all():
                raise merged_not_finite(f"{plain}.{key}", dtype)
            proof.record(plain, key, layer, before[key], parameter.data, norm)


def _not_mergeable(adapter: Adapter, error: Exception) -> WorkerError:
    return WorkerError(
        "merge.not-mergeable",
        f"PEFT cannot merge an adapter of type {adapter.config['peft_type']}.",
        str(error)[:500],
        "Serve it beside its base instead, where the server supports its kind.",
        exit_code=2,
    )
