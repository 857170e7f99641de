"""The transient peak of vLLM's profile run: what is allocated at the same moment, tensor by tensor.

The profile run computes one batch of ``tokens`` tokens for ``sequences`` requests, then samples a token for each. The
peak is the larger of the two, computed from the sizes of the tensors that are alive together, so it holds for a
model that was never measured. Sources: vLLM's model and sampler code, named with each term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.vllm_versions import SamplerKind, VllmBehaviour

_MIB = 1024**2

SORT_BYTES = 36.4
"""Sampler that sorts: float32 logits 4 + sorted 4 + int64 indices 8 + the radix sort's key 4 and index pairs 2 x 8,
and 0.4 of its own (aten/src/ATen/native/cuda/Sort.cu, segmented_sort_pairs_by_full_sort); the logits in the model's
dtype come on top. 38.4 B in 16 bit: 26 measured loads say 38.4 +- 0.4 once the hidden states are taken off."""
FUSED_BYTES = 12.0
"""Sampler without a sort: float32 logits 4 + masked logits or probabilities 4 + noise or probabilities 4
(v1/sample/ops/topk_topp_sampler.py, forward_native with Triton and flashinfer_sample)."""
COUNTING_TABLE_BYTES = 4.125
"""The second model runner's penalties: an int32 count and one bit for each sequence and token of the vocabulary, kept
(v1/worker/gpu/sample/penalties.py); sampling itself takes the logits and nothing of that size."""
_MLA_UP_PROJECTED = 256
"""Elements a head and row of up-projected MLA context: qk_nope_head_dim + v_head_dim, both 128 in every DeepSeek."""
_VISION_BYTES_PER_TOKEN = 18_816
"""Pixels behind one image token: 4 patches of 3 x 2 x 14 x 14 values, float32 (the Qwen2-VL processor)."""


@dataclass(frozen=True, slots=True)
class Transient:
    """Bytes on one GPU: expected, and the ends of the band. ``kept`` stays allocated after the profile run."""

    peak: int
    low: int
    high: int
    kept: int
    formula: str


def transient_peak(
    shape: ModelShape,
    rules: VllmBehaviour,
    *,
    tokens: int,
    sequences: int,
    mla_rows: int = 0,
    tensor_parallel: int = 1,
    width: int = 2,
) -> Transient:
    """The peak for one batch of ``tokens`` and ``sequences`` requests.

    ``mla_rows``: of :func:`mla_context_rows`; ``width``: bytes of an activation.
    """
    hidden = shape.hidden_size or 0
    rows = min(sequences, tokens)
    logits = rows * (shape.vocabulary or 0)
    kind = rules.sampler_moe if shape.is_moe else rules.sampler
    sampler, sampler_low, kept = _sampler(kind, rules, width, tensor_parallel)
    states = (tokens + 2 * rows) * hidden * width
    sample = int(logits * sampler) + states
    forward = int(tokens * width * _forward_elements(shape, rules, tensor_parallel))
    heads = max(1, (shape.heads or 1) // tensor_parallel)
    forward += mla_rows * heads * _MLA_UP_PROJECTED * width
    image_low = image = image_high = 0
    if shape.has_vision:
        # The encoder's output stays while the language model is profiled; its own pass may be larger than both.
        image_low = tokens * hidden * width
        image = (
            image_low if rules.engine == "v1" else 3 * image_low + tokens * _VISION_BYTES_PER_TOKEN
        )
        image_high = image + 2 * tokens * _VISION_BYTES_PER_TOKEN + 1024 * _MIB
    if not shape.is_generative:
        sample, sampler_low = 0, 0.0
    peak = max(forward, sample) + image
    low = max(forward * 3 // 4, int(logits * sampler_low) + states) + image_low
    high = max(forward * 4 // 3, int(logits * (sampler + 0.6)) + states) + image_high + 96 * _MIB
    larger = (
        "forward pass" if forward >= sample else f"sampler ({sampler:.1f} B x {rows} x vocabulary)"
    )
    return Transient(peak, min(low, peak), high, int(logits * kept), f"{larger}, {tokens} tokens")


def _sampler(
    kind: SamplerKind, rules: VllmBehaviour, width: int, tensor_parallel: int
) -> tuple[float, float, float]:
    """Bytes for each logit at the peak, the least of it, and what is kept."""
    gathered = width * (1 + 1 / tensor_parallel) if tensor_parallel > 1 else 0.0
    if kind == "sort":
        # FlashInfer's sampler is taken where it is installed (until 0.11.0) or asked for.
        return SORT_BYTES + width, FUSED_BYTES + width, 0.0
    if kind == "fused":
        return FUSED_BYTES + width, FUSED_BYTES + width, 0.0
    return width + gathered, float(width), COUNTING_TABLE_BYTES


def _forward_elements(shape: ModelShape, rules: VllmBehaviour, tensor_parallel: int) -> float:
    """Elements a token that are alive together, in the widest moment of a layer.

    Dense MLP: gate and up 2I, their product I, and the hidden state, its norm and the residual 3H: measured as
    110592 B a token for an 8B Llama, which is 2 x (3 x 14336 + 3 x 4096). With tensor parallel the I are divided and
    two more H are alive for the all-reduce (measured: 14B and 32B Qwen2.5 on two GPUs). Experts: the tokens' copies,
    top-k of them, through the same two layers (fused_moe.py, intermediate_cache1 to 3), and 4H.
    """
    hidden = shape.hidden_size or 0
    split = max(1, tensor_parallel)
    around = 3 * hidden + (2 * hidden if split > 1 else 0)
    dense = 3 * (shape.intermediate_size or 0) / split + around
    experts = 0.0
    if shape.is_moe and shape.experts_per_token:
        inner = (shape.moe_intermediate_size or shape.intermediate_size or 0) / split
        shared = rules.version >= (0, 8, 5)
        one = inner + max(2 * inner, hidden) if shared else 3 * inner + hidden
        experts = shape.experts_per_token * one + 4 * hidden
    query = (shape.heads or 0) * (shape.head_dim or 0) / split
    keys = max(1, (shape.kv_heads or 0) // split) * (shape.head_dim or 0)
    # Q, K and V as one tensor and once more with the rotation applied, and the attention's output.
    attention = 3 * query + 4 * keys + around
    return max(dense, experts, attention)


def mla_context_rows(
    shape: ModelShape, rules: VllmBehaviour, context: int, sequences: int, block_tokens: int
) -> int:
    """Rows of up-projected context that MLA's profile run allocates; 0 without MLA (mla_attention.py, forward_impl)."""
    if not rules.mla_workspace_rows or not any(each.kind == "mla" for each in shape.attention):
        return 0
    rows = min(max(8 * context, 4 * sequences * block_tokens), rules.mla_workspace_rows)
    return max(rows, sequences * block_tokens)
