"""The table of cosines and sines that vLLM makes while it loads: no parameters, but counted in what loading took.

One table for each distinct rope of the model, shared by its layers, in the served dtype
(vllm/model_executor/layers/rotary_embedding/, 0.32: ``cos_sin_cache``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.attention_layers import head_dimension
from quantui.domain.architecture.config_view import model_types, positive, rope_parts
from quantui.domain.architecture.layer_schedule import is_mla

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.architecture.config_view import ConfigView

_WITHOUT = model_types(
    "gpt2 gpt_bigcode gpt_neo opt bloom mpt whisper mamba mamba2 falcon_mamba jamba nemotron_h bert"
    " roberta"
)
_ELSEWHERE = model_types(
    "smollm3 olmo olmo2 olmo3 seed_oss starcoder2 helium arcee dots1 hunyuan_v1_dense hunyuan_v1_moe glm phi gpt_neox"
    " gpt_bigcode persimmon minimax bamba"
)
"""Run by transformers' own code in vLLM 0.32, which keeps no table (model_executor/models/transformers)."""
_SCALED = frozenset({"linear", "dynamic", "ntk"})
_FROM_ORIGINAL = frozenset({"yarn", "deepseek_yarn", "deepseek_llama_scaling"})
_TWO_ROPES = frozenset({"gemma3_text", "gemma3n_text", "gemma4_text", "modernbert"})


def rotary_elements(text: ConfigView) -> int:
    """Elements of all tables together; 0 where there is no rope or its sizes are not known."""
    positions = text.whole("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    if text.model_type in {"cohere", "cohere2"}:
        # vllm/model_executor/models/commandr.py prefers this field.
        positions = text.whole("model_max_length") or positions
    width = text.whole("qk_rope_head_dim") if is_mla(text) else head_dimension(text)
    kind, said = text.model_type, text.text("position_embedding_type")
    if said == "nope" or (kind == "granitemoehybrid" and said != "rope"):
        return 0
    if kind == "zamba2" and not text.flag("use_mem_rope"):
        return 0
    if (
        positions is None
        or width is None
        or text.model_type in _WITHOUT | _ELSEWHERE
        or text.flag("alibi")
    ):
        return 0
    parts = rope_parts(text.values)
    tables = sum(_table(text, part, positions, width) for part in parts or ({},))
    if len(parts) < 2 and text.model_type in _TWO_ROPES:
        tables += positions * width
    return tables


def _table(text: ConfigView, rope: Mapping[str, Any], positions: int, width: int) -> int:
    """Rows times columns of one rope's table."""
    kind = rope.get("rope_type") or rope.get("type")
    part = text.number("partial_rotary_factor", "rotary_pct", "rope_pct")
    stated = rope.get("partial_rotary_factor")
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        part = float(stated)
    columns = text.whole("rotary_dim") or width
    if part is not None and 0 < part <= 1 and not is_mla(text):
        columns = int(width * part)
    factor = rope.get("factor")
    scale = float(factor) if isinstance(factor, int | float) and 0 < factor < 1000 else 1.0
    original = positive(rope.get("original_max_position_embeddings"))
    if isinstance(kind, str) and kind in _FROM_ORIGINAL and original:
        return int(original * scale) * columns
    if kind == "longrope":
        original = original or text.whole("original_max_position_embeddings") or 0
        return (original + positions) * columns
    if isinstance(kind, str) and kind in _SCALED:
        return int(positions * scale) * columns
    if isinstance(rope.get("mrope_section"), list):
        # Images take several positions each (mrope.py, cache_max_position_num).
        return positions * 4 * columns
    return positions * columns
