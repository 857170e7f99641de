"""Bytes of the buffers that vLLM keeps for LoRA adapters: one set for each slot, allocated while it loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.architecture.config_view import model_types
from quantui.domain.weights.layer_partition import layers_of_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.weights.weight_groups import WeightGroup

EXTRA_VOCABULARY = 256
"""Rows that an adapter could add to the vocabulary, before vLLM 0.12 (``lora_extra_vocab_size``)."""
_WITH_EMBEDDINGS = model_types(
    "llama mixtral granite granitemoe granitemoeshared granitemoehybrid qwen3 qwen3_moe falcon_h1"
    " llama4_text bamba jamba nemotron_h zamba2 lfm2 gpt_bigcode minicpm solar phimoe exaone exaone4"
)
"""Models whose embedding and head take adapters (``embedding_modules`` of vllm/model_executor/models/*.py)."""
_LATE = (0, 12)
"""Before it, experts took no adapters and the vocabulary could grow."""


def lora_bytes(
    census: Sequence[WeightGroup],
    *,
    max_loras: int = 1,
    max_rank: int = 16,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    model_type: str | None = None,
    dtype_bytes: int = 2,
    version: tuple[int, ...] = (0, 32),
) -> int:
    """Bytes on the fullest rank for ``max_loras`` slots of ``max_rank``.

    Every linear layer of the language model gets A (``rank x inputs``) and B (``outputs x rank``), whatever an adapter
    targets. Without ``--fully-sharded-loras`` A is whole on each rank of a column-parallel layer and B on each of a
    row-parallel one (vllm/lora/layers/base_linear.py, column_parallel_linear.py, fused_moe.py, 0.32).
    """
    ranks, stages = max(1, tensor_parallel), max(1, pipeline_parallel)
    layers = 1 + max((index for group in census for index in group.layers), default=-1)
    # A tied head is a module of its own, with buffers of its own.
    tied = not any(group.role == "head" for group in census)
    highest = 0.0
    for stage in range(stages):
        held = layers_of_stage(layers, stage, stages)
        elements = 0.0
        for group in census:
            if group.layers:
                share = sum(index in held for index in group.layers) / len(group.layers)
            else:
                share = float(stage == (0 if group.stage == "first" else stages - 1))
            if share:
                twice = 2 if tied and group.split == "vocabulary" else 1
                each = _elements(group, max_rank, ranks, model_type, version)
                elements += share * twice * each
        highest = max(highest, elements)
    return int(highest * max_loras * dtype_bytes) + _grown_vocabulary(
        census, model_type, version, dtype_bytes
    )


def _elements(
    group: WeightGroup, rank: int, ranks: int, model_type: str | None, version: tuple[int, ...]
) -> float:
    """Elements of A and B for all layers of a group, in one slot."""
    rows, columns, count = group.rows, group.columns, group.count
    if group.role in {"linear", "expert", "router"}:
        if columns == 1 or not group.layers or (group.role == "expert" and version < _LATE):
            return 0.0
        if group.split == "row" or (group.split == "experts" and "down" in group.name):
            return rank * (columns / ranks + rows) * count
        if group.split in {"column", "experts"}:
            return rank * (columns + rows / ranks) * count
        if group.split == "kv_heads" and group.heads:
            share = max(1, group.heads // ranks) / group.heads
            return rank * (columns + rows * share) * count
        return rank * (columns + rows) * count
    if model_type in _WITH_EMBEDDINGS and group.split == "vocabulary" and columns > 1:
        extra = EXTRA_VOCABULARY if version < _LATE else 0
        # The head's logits are gathered before its adapter, so nothing of either is divided.
        return float(rank * (rows + extra + columns) + extra * columns)
    return 0.0


def _grown_vocabulary(
    census: Sequence[WeightGroup],
    model_type: str | None,
    version: tuple[int, ...],
    dtype_bytes: int,
) -> int:
    """The rows that base tables are larger by when adapters may add tokens."""
    if version >= _LATE or model_type not in _WITH_EMBEDDINGS:
        return 0
    tables = [group for group in census if group.split == "vocabulary" and group.columns > 1]
    return sum(EXTRA_VOCABULARY * group.columns * dtype_bytes for group in tables)
