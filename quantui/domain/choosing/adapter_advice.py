"""Whether adapters are merged into the base or kept beside it at run time, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.adapter_match import UNMERGEABLE_TYPES
from quantui.domain.choosing.recommendation import AdapterAdvice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.choosing.recommendation import AdapterMode, Situation
    from quantui.domain.models import AdapterSpec

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that --max-lora-rank takes (vLLM 0.32, vllm/config/lora.py, MaxLoRARanks)."""
_LORA_FILE = "vLLM 0.32, vllm/config/lora.py and vllm/lora/peft_helper.py"
_KEPT_WITH_LORA = frozenset({"classifier", "score"})
"""What ``modules_to_save`` may hold for vLLM to serve the adapter (vllm/lora/peft_helper.py)."""


def lora_rank(adapters: tuple[AdapterSpec, ...]) -> int | None:
    """The --max-lora-rank that holds all of them; None when one is larger than vLLM takes, or its rank unknown."""
    ranks = [adapter.rank for adapter in adapters]
    largest = max((rank for rank in ranks if rank is not None), default=0)
    if None in ranks:
        return None
    return next((rank for rank in LORA_RANKS if rank >= largest), None)


def adapter_advice(situation: Situation) -> AdapterAdvice | None:
    """How to serve the situation's adapters; None without any.

    One adapter is merged where it can be: nothing is computed beside the base then, and any format can be made of the
    result. Several, or ones that change, are kept beside one base. A quantized base cannot be merged into.
    """
    adapters = situation.adapters
    if not adapters:
        return None
    no_merge = tuple(_against_merging(situation))
    no_lora = tuple(_against_lora(situation))
    mode, reasons = _decide(situation, no_merge, no_lora)
    return AdapterAdvice(mode, reasons, not no_merge, not no_lora, _LORA_FILE)


def _decide(
    situation: Situation, no_merge: tuple[str, ...], no_lora: tuple[str, ...]
) -> tuple[AdapterMode | None, tuple[str, ...]]:
    count, rank = len(situation.adapters), lora_rank(situation.adapters)
    if no_merge and no_lora:
        return None, (*no_merge, *no_lora)
    if no_merge:
        return "lora", (*no_merge, f"It is served beside the base with --max-lora-rank {rank}.")
    if no_lora:
        return "merge", (*no_lora, "Merged, it is part of the weights and needs nothing of vLLM.")
    if count > 1:
        return "lora", (
            f"{count} adapters share one base in memory; merged, each would be a model of its own.",
            f"--max-loras {count} --max-lora-rank {rank}: each request names the adapter it wants.",
        )
    if situation.adapters_change:
        return "lora", (
            "The adapter is exchanged while it serves: merging would write the whole model each time.",
        )
    return "merge", (
        "One adapter: merged, it costs no time at each token and no memory beside the weights, and the result can be "
        "quantized like any model.",
        f"Unmerged, a product of rank {situation.adapters[0].rank or '?'} is computed beside every layer it has: about "
        "2 ms a token (Punica, arXiv 2310.18547).",
    )


def _against_merging(situation: Situation) -> Iterator[str]:
    if situation.shape.quantization:
        base = f" ({situation.base_ref})" if situation.base_ref else ""
        yield (
            f"The base is stored in {situation.shape.quantization}: an adapter cannot be added to packed weights. "
            f"Merging takes the 16-bit base{base}."
        )
    for adapter in situation.adapters:
        if adapter.peft_type in UNMERGEABLE_TYPES:
            yield f"{adapter.ref} is of the type {adapter.peft_type}, which cannot be merged."


def _against_lora(situation: Situation) -> Iterator[str]:
    for adapter in situation.adapters:
        if adapter.peft_type != "LORA":
            yield f"vLLM serves LoRA adapters only; {adapter.ref} is of the type {adapter.peft_type}."
            continue
        if adapter.use_dora:
            yield f"vLLM does not serve DoRA; {adapter.ref} uses it."
        if adapter.rank is not None and adapter.rank > LORA_RANKS[-1]:
            yield f"vLLM serves ranks up to {LORA_RANKS[-1]}; {adapter.ref} has {adapter.rank}."
        if adapter.rank is None:
            yield f"The rank of {adapter.ref} is unknown, and vLLM has to be told the largest."
        kept = [name for name in adapter.modules_to_save if name not in _KEPT_WITH_LORA]
        if kept:
            yield f"{adapter.ref} brings whole layers ({', '.join(kept[:3])}), which vLLM does not take."
        if str(adapter.config.get("bias", "none")) != "none" or adapter.config.get("lora_bias"):
            yield f"{adapter.ref} changes biases, which vLLM does not take."
