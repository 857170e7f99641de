"""What AutoAWQ cannot quantize, told before any weight is read."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from quantizing import models, producing
from quantui_wire import WorkerError

if TYPE_CHECKING:
    from quantizing.job import Job

PACKED = 8
"""Values of 4 bit in the int32 that the format packs outputs into (awq/modules/linear/gemm.py)."""
CLIPPED = 64
"""Outputs that the search for the best clipping takes at once (awq/quantize/quantizer.py)."""


def refuse(job: Job, config: dict[str, Any]) -> None:
    """Refuse a recipe or model that AutoAWQ would stumble over, tried on the model without its weights.

    Raises:
        WorkerError: ``quantize.bad-recipe``, ``quantize.unsupported-architecture``,
            ``quantize.unknown-architecture``.
    """
    recipe = job.recipe
    what = ""
    if recipe.bits != 4:
        what = f"AutoAWQ makes no weights of {recipe.bits} bit: 4 is all it knows."
    elif recipe.symmetric:
        what = "AutoAWQ's format has zero points: it is not symmetric."
    elif others := [name for name in recipe.ignore if name != "lm_head"]:
        what = (
            f"AutoAWQ cannot leave {others[0]} in 16 bit: it scales the layers of a block together."
        )
    elif recipe.group_size == -1:
        what = "AutoAWQ needs groups: a whole row is none to it."
    if what:
        fix = "Choose llm-compressor's AWQ, which can."
        raise WorkerError("quantize.bad-recipe", what, fix=fix, exit_code=2)
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP

    kind = str(config.get("model_type"))
    if kind not in AWQ_CAUSAL_LM_MODEL_MAP:
        raise unsupported(config, f"It has no support for the model type {kind}, and gets none.")
    rehearse(job, config, AWQ_CAUSAL_LM_MODEL_MAP[kind])


def rehearse(job: Job, config: dict[str, Any], knows: Any) -> None:  # noqa: ANN401
    """Ask ``knows``, AutoAWQ's class for the model type, for the layers of the model without weights.

    Its classes name modules as transformers 4 did; those that transformers 5 has not show here.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``quantize.unknown-architecture``.
    """
    import torch
    from transformers import AutoConfig

    loader = models.model_class(config, trust_remote_code=job.trust_remote_code)
    own = AutoConfig.from_pretrained(
        job.model, trust_remote_code=job.trust_remote_code, local_files_only=True
    )
    make = getattr(loader, "from_config", None) or loader._from_config
    try:
        with torch.device("meta"):
            model = make(own)
        blocks = knows.get_model_layers(model)
        for block in blocks:
            # The inputs do not matter here: only their names are looked up.
            knows.get_layers_for_scaling(block, defaultdict(lambda: None), {})
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise unsupported(
            config,
            f"It looks for modules that transformers 5 has not: {_told(error)}.",
        ) from error
    for block in blocks:
        for name, parameter in block.named_parameters():
            if parameter.dim() > 2:
                raise unsupported(
                    config,
                    f"{name} holds all experts in one tensor, and AutoAWQ knows layers alone.",
                )
        for name, layer in block.named_modules():
            if not isinstance(layer, torch.nn.Linear):
                continue
            clipped = not any(part in name for part in ("q_", "k_", "query", "key", "Wqkv"))
            step = CLIPPED if clipped else PACKED
            if layer.out_features % step:
                raise unsupported(
                    config,
                    f"{name} gives {layer.out_features} features, and AutoAWQ takes multiples of {step}.",
                )


def _told(error: Exception) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]


def unsupported(config: dict[str, Any], why: str) -> WorkerError:
    """The error of a model that AutoAWQ does not take."""
    architecture = (config.get("architectures") or ["this model"])[0]
    return WorkerError(
        "quantize.unsupported-architecture",
        f"AutoAWQ 0.2.9 does not quantize {architecture}.",
        why,
        "Choose llm-compressor as the producer: AutoAWQ's author names it as what follows.",
        exit_code=3,
    )
