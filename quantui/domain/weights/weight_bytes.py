"""Bytes of weights on one GPU once vLLM has loaded them, by tensor and pipeline parallel rank."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from quantui.domain.weights.layer_partition import layers_of_stage
from quantui.domain.weights.weight_groups import TABLE, WeightBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.methods import Method
    from quantui.domain.weights.weight_groups import WeightGroup

VOCABULARY_PADDING = 64
"""Rows of embedding and head are a multiple of it (vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE)."""
_MXFP4_ROWS, _MXFP4_COLUMNS = 128, 256
"""What MXFP4 experts are rounded up to by Marlin and TensorRT-LLM's kernels: inner size and hidden size.

Other kernels round up less (fused_moe/oracle/mxfp4.py, mxfp4_round_up_hidden_size_and_intermediate_size, 0.32).
"""
_MXFP4_WIDTH = 17 / 32
_NF4_WITH_WHOLE_SCALES = 0.5625
"""4 bits and a 32-bit scale every 64: what loading makes of double quantization since vLLM 0.9.2.

https://github.com/vllm-project/vllm/pull/19742; vllm_bnb_plugin/bitsandbytes_loader.py, _dequantize_dq.
"""
_NF4_DOUBLE_QUANTIZED = 0.5 + 1 / 64 + 4 / (64 * 256)
"""4 bits, an 8-bit scale every 64 and a 32-bit one for 256 of those (Dettmers et al. 2023, QLoRA, section 3)."""
_SCALES_UNFOLDED = (0, 9, 2)
_GUESSED = 0.15
"""Allowance for a model whose weights are counted as Llama's, or whose vision tower is not counted."""


def weight_bytes_per_rank(
    census: Sequence[WeightGroup],
    method: Method | None,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    dtype: str = "auto",
    version: tuple[int, ...] = (0, 32),
) -> WeightBytes:
    """The bytes on the worst rank, for ``census`` served with ``method`` (None: as it is).

    A checkpoint that is stored quantized keeps its own format. Otherwise linear layers and experts take
    ``method.bytes_per_linear_weight`` each and the rest the served dtype: a float32 checkpoint is loaded in
    16 bit unless told otherwise (vllm/config/model.py, _resolve_auto_dtype). ``version`` is vLLM's.
    """
    width = 4 if dtype == "float32" else 2
    ranks = max(1, tensor_parallel)
    stages = max(1, pipeline_parallel)
    layers = 1 + max((index for group in census for index in group.layers), default=-1)
    tied = not any(group.role == "head" for group in census)
    only_experts = method is not None and method.only == ("moe",)
    best: Counter[str] = Counter()
    best_whole, highest, total = 0.0, -1.0, 0.0
    for stage in range(stages):
        held = layers_of_stage(layers, stage, stages)
        by_role: Counter[str] = Counter()
        whole = 0.0
        for group in census:
            if group.name == TABLE:
                by_role[group.role] += group.rows * width
                whole += group.rows * width
                continue
            part = _part_on_stage(group, held, stage, stages, tied=tied)
            if not part:
                continue
            each = _bytes_per_element(group, method, width, ranks, only_experts=only_experts)
            each = _with_scales(group, method, each, version)
            share = (
                _rank_elements(group, ranks) * each * part
                + _latent_copies(group, method, ranks) * part
            )
            by_role[group.role] += round(share)
            if group.split == "none":
                whole += share
        here = float(sum(by_role.values()))
        total += here * ranks
        if here > highest:
            best, best_whole, highest = by_role, whole, here
    return WeightBytes(
        per_rank=int(highest),
        total=int(total),
        by_role=dict(best.most_common()),
        replicated=int(best_whole),
        error_fraction=_error(census, method, ranks, best),
        formula=_formula(census, method, width, ranks, stages),
        source=_source(census, method),
    )


def _part_on_stage(
    group: WeightGroup, held: range, stage: int, stages: int, *, tied: bool
) -> float:
    """Which part of a group's tensors a pipeline stage holds.

    The first has the embeddings and the vision tower, the last the norm and the head; a tied table is on both
    (vllm/model_executor/models/llama.py, LlamaModel.__init__).
    """
    if group.stage == "layer":
        if not group.layers:
            return 1 / stages
        return sum(index in held for index in group.layers) / len(group.layers)
    if group.stage == "first":
        again = (
            tied
            and stage == stages - 1
            and group.role == "embedding"
            and group.split == "vocabulary"
        )
        return float(stage == 0 or again)
    return float(stage == stages - 1)


def _rank_elements(group: WeightGroup, ranks: int) -> float:
    """Elements of the whole group on one tensor parallel rank, padding included."""
    if group.split == "none":
        return group.elements
    if group.split == "vocabulary":
        padded = -(-group.rows // VOCABULARY_PADDING) * VOCABULARY_PADDING
        return padded * group.columns * group.count / ranks
    if group.split == "kv_heads" and group.heads:
        return group.elements * max(1, group.heads // ranks) / group.heads
    return group.elements / ranks


def _is_stored(group: WeightGroup) -> bool:
    return group.quantized and group.stored_width is not None


def _bytes_per_element(
    group: WeightGroup, method: Method | None, width: int, ranks: int, *, only_experts: bool
) -> float:
    if not group.quantized:
        # A state's decay stays in 32 bit (layers/mamba/mamba_mixer.py, mamba_mixer2.py).
        return 4 if group.name.endswith("A_log") else width
    if group.stored_width is not None:
        if _is_mxfp4(group):
            return group.stored_width * _rounding(group, ranks)
        return group.stored_width
    if method is None or method.name == "none" or (only_experts and group.role != "expert"):
        return width
    return method.bytes_per_linear_weight


def _with_scales(
    group: WeightGroup, method: Method | None, each: float, version: tuple[int, ...]
) -> float:
    """``each``, for bitsandbytes' 4 bit as the version keeps its scales: unfolded to 32 bit, or quantized still.

    What is made while loading is double quantized (bitsandbytes_loader.py, quantize_4bit(compress_statistics=True)).
    """
    name = group.stored_as or (method.name if method is not None else "")
    if not group.quantized or name != "bitsandbytes" or not 0.5 < each <= _NF4_WITH_WHOLE_SCALES:
        return each
    if version >= _SCALES_UNFOLDED:
        return _NF4_WITH_WHOLE_SCALES
    return each if group.stored_as else _NF4_DOUBLE_QUANTIZED


def _is_mxfp4(group: WeightGroup) -> bool:
    return group.role == "expert" and abs((group.stored_width or 0) - _MXFP4_WIDTH) < 1e-3


def _rounding(group: WeightGroup, ranks: int) -> float:
    """How much larger MXFP4 experts become when hidden size and inner size a rank are rounded up; 1 if round."""
    hidden, inner = group.columns, group.rows
    if "down" in group.name:
        hidden, inner = inner, hidden
    if "gate_up" in group.name:
        inner //= 2
    part = max(1, inner // ranks)
    up = -(-hidden // _MXFP4_COLUMNS) * _MXFP4_COLUMNS
    return up * (-(-part // _MXFP4_ROWS) * _MXFP4_ROWS) / max(1, hidden * part)


def _latent_copies(group: WeightGroup, method: Method | None, ranks: int) -> float:
    """16-bit copies of a quantized ``kv_b_proj``: latent attention multiplies with its halves itself.

    vllm/model_executor/layers/attention/mla_attention.py, process_weights_after_loading.
    """
    if not group.name.endswith("kv_b_proj") or not group.quantized:
        return 0.0
    made = group.stored_width is not None or (
        method is not None and method.bytes_per_linear_weight < 2
    )
    return 2 * group.elements / ranks if made else 0.0


def _error(
    census: Sequence[WeightGroup],
    method: Method | None,
    ranks: int,
    by_role: Counter[str],
) -> float:
    if not all(group.exact for group in census):
        return _GUESSED
    error = 0.01
    if all(group.stored_bytes is None for group in census):
        error = 0.015
    made = any(group.quantized and group.stored_width is None for group in census)
    if method is not None and made and method.bytes_per_linear_weight < 2:
        error += 0.02
    if any(_is_mxfp4(group) and _rounding(group, ranks) > 1 for group in census):
        error += 0.05
    if any(group.role == "vision" for group in census) and ranks > 1:
        error += by_role["vision"] * (1 - 1 / ranks) / max(1, sum(by_role.values()))
    return round(error, 4)


def _formula(
    census: Sequence[WeightGroup], method: Method | None, width: int, ranks: int, stages: int
) -> str:
    linear = sum(group.elements for group in census if group.quantized)
    rest = sum(group.elements for group in census) - linear
    if any(_is_stored(group) for group in census):
        each = "as stored"
    else:
        each = (
            f"{method.bytes_per_linear_weight if method and method.name != 'none' else width:g} B"
        )
    words = f"{linear} linear weights x {each} + {rest} others x {width} B"
    if ranks > 1:
        words += f", split over {ranks} GPUs (norms, routers and biases of rows on each)"
    if stages > 1:
        words += f", the fullest of {stages} pipeline stages"
    return words


def _source(census: Sequence[WeightGroup], method: Method | None) -> str:
    if any(group.stored_bytes is not None for group in census):
        return "safetensors headers: dtype and shape of every tensor"
    if method is not None and method.name != "none":
        return f"shapes of the layers in config.json; {method.name}: the catalogue's bytes a weight"
    return "shapes of the layers in config.json"
