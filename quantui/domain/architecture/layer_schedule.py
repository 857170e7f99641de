"""Which layer of a model mixes tokens how: attention (full, windowed, latent), state space, convolution.

What a config leaves to its class is filled in as transformers 5.19 does it (models/*/configuration_*.py,
``__post_init__``), and what vLLM 0.32 makes of it: a ``sliding_window`` without ``layer_types`` holds for every layer
(vllm/engine/arg_utils.py, create_engine_config), and Qwen2's and Qwen3's own ``layer_types`` do not count
(vllm/model_executor/models/qwen2.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.config_view import (
    MOST_LAYERS,
    model_types,
    positive,
    whole_numbers,
)

if TYPE_CHECKING:
    from quantui.domain.architecture.config_view import ConfigView

Mixers = tuple[str, ...]
"""Of one layer, in words: ``full``, ``sliding``, ``chunked``, ``mla``, ``cross``, ``encoder``, ``mamba1``, ``mamba2``,
``gdn``, ``kda``, ``lightning``, ``conv``; empty where a layer is an MLP only."""

MLA_TYPES = model_types(
    "axk1 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 deepseek_v41 dots3_note glm5_next"
    " glm5_next_text glm_moe_dsa glm4_moe_lite kimi_k2 kimi_linear longcat_flash pangu_ultra_moe"
    " bailing_hybrid hy_v4"
)
"""Served with a latent cache (vllm/transformers_utils/model_arch_config_convertor.py, is_deepseek_mla, 0.32)."""
ENCODER_TYPES = model_types(
    "bert roberta xlm-roberta modernbert nomic_bert new gte distilbert electra albert deberta deberta-v2"
    " mpnet camembert eurobert clip siglip"
)
_WINDOW_EVERY = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n": 5,
    "gemma3n_text": 5,
    "gemma4": 6,
    "gemma4_text": 6,
    "gemma4_unified_text": 6,
    "cohere2": 4,
    "cohere2_moe": 4,
    "exaone4": 4,
    "exaone_moe": 4,
    "olmo3": 4,
    "afmoe": 4,
    "gpt_oss": 2,
}
"""Every how many layers one has full attention, where the class decides."""
_NOT_WINDOWED = model_types(
    "qwen2 qwen2_moe qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text qwen2_audio qwen2_5_omni_text"
    " qwen3 qwen3_moe qwen3_vl_text qwen3_vl_moe_text qwen3_omni_moe_text"
)
_LINEAR_KIND = {
    "kimi_linear": "kda",
    "minimax": "lightning",
    "minimax_m1": "lightning",
    "minimax_text_01": "lightning",
    "bailing_hybrid": "lightning",
    "bailing_moe_linear": "lightning",
    "jamba": "mamba1",
    "mamba": "mamba1",
    "falcon_mamba": "mamba1",
    "bamba": "mamba2",
    "granitemoehybrid": "mamba2",
    "nemotron_h": "mamba2",
    "zamba2": "mamba2",
    "mamba2": "mamba2",
    "falcon_h1": "mamba2",
    "plamo2": "mamba2",
}
_NAMES = {
    "full_attention": "full",
    "attention": "full",
    "full": "full",
    "global": "full",
    "indexed_attention": "full",
    "minimax_m3_sparse": "full",
    "sparse": "full",
    "sliding_attention": "sliding",
    "sliding_window": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "mamba": "linear",
    "mamba2": "mamba2",
    "conv": "conv",
    "moe": "",
    "mlp": "",
}


def layer_count(text: ConfigView) -> int | None:
    """How many decoder layers there are; None when the config does not say, or says nonsense."""
    layers = text.whole(
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "decoder_layers",
        "num_decoder_layers",
    )
    if layers is None or layers > MOST_LAYERS:
        return None
    if text.model_type == "longcat_flash":
        # Each of its layers has two attentions; ``num_layers`` counts the layers.
        return text.whole("num_layers") or layers
    return layers


def layer_mixers(text: ConfigView) -> tuple[list[Mixers], tuple[str, ...]]:
    """What each layer mixes with, and notes on what was not understood; no layers when their number is unknown."""
    count = layer_count(text)
    if count is None:
        return [], ("the number of layers is unknown",)
    kind, notes = text.model_type, []
    if kind in ENCODER_TYPES:
        return [("encoder",)] * count, ()
    if kind in {"mamba", "falcon_mamba", "mamba2"}:
        return [(_LINEAR_KIND[kind],)] * count, ()
    if kind == "falcon_h1":
        return [("full", "mamba2")] * count, ()
    if kind == "longcat_flash":
        return [("mla", "mla")] * count, ()
    named = _stated_types(text, count)
    if named is None:
        named = _class_types(text, count)
    attention = "mla" if is_mla(text) else "full"
    window = uniform_window(text)
    if named is None:
        if attention == "full" and window is not None:
            attention = "sliding"
        named = [attention] * count
    mixers: list[Mixers] = []
    unknown: list[int] = []
    for index, name in enumerate(named):
        if name == "hybrid":
            mixers.append(("full", _LINEAR_KIND.get(kind, "mamba2")))
            continue
        mapped = _NAMES.get(name, name if name in _KNOWN else None)
        if mapped is None:
            unknown.append(index)
            mapped = "full"
        if mapped == "linear":
            mapped = _LINEAR_KIND.get(kind, "gdn")
        if mapped == "full":
            mapped = attention
        if mapped == "sliding" and (kind in _NOT_WINDOWED or _window(text) is None):
            mapped = attention if attention != "sliding" else "full"
        if mapped == "chunked" and text.whole("attention_chunk_size") is None:
            mapped = "full"
        mixers.append((mapped,) if mapped else ())
    if unknown:
        shown = ", ".join(map(str, unknown[:6])) + (" ..." if len(unknown) > 6 else "")
        notes.append(f"attention of layers {shown} is unknown: counted as full")
    return mixers, tuple(notes)


_KNOWN = frozenset(
    {
        "full",
        "sliding",
        "chunked",
        "mla",
        "cross",
        "encoder",
        "mamba1",
        "gdn",
        "kda",
        "lightning",
        "",
    }
)


def is_mla(text: ConfigView) -> bool:
    """Whether vLLM keeps one latent a token for this model."""
    if text.whole("kv_lora_rank") is None or text.null("kv_lora_rank"):
        return False
    if text.values.get("use_mla") is False:
        return False
    return text.model_type in MLA_TYPES or (
        text.model_type not in {"minicpm3"} and text.whole("qk_rope_head_dim") is not None
    )


def uniform_window(text: ConfigView) -> int | None:
    """The window of a model whose layers are all alike; None: full attention."""
    if text.model_type in _NOT_WINDOWED or text.model_type in _WINDOW_EVERY:
        return None
    if not text.flag("use_sliding_window", otherwise=True):
        return None
    return _window(text)


def _window(text: ConfigView) -> int | None:
    if text.null("sliding_window"):
        return None
    return text.whole("sliding_window", "sliding_window_size")


def _stated_types(text: ConfigView, count: int) -> list[str] | None:
    """One name a layer, from whatever list the config gives."""
    pattern = text.values.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        names = {"M": "mamba2", "*": "full_attention", "-": "mlp", "E": "moe"}
        return _fit([names.get(letter, letter) for letter in pattern if letter not in "|"], count)
    types = text.items("layer_types", "layers_block_type")
    if types is not None:
        return _fit([name if isinstance(name, str) else "unknown" for name in types], count)
    if (numbers := text.items("attn_type_list")) is not None:
        return _fit(["full_attention" if n == 1 else "linear_attention" for n in numbers], count)
    if (numbers := text.items("hybrid_layer_pattern")) is not None:
        return _fit(["sliding_attention" if n == 1 else "full_attention" for n in numbers], count)
    if (blocks := text.items("block_configs")) is not None:
        return _fit([_block_type(block) for block in blocks], count)
    if isinstance(linear := text.values.get("linear_attn_config"), Mapping):
        return _kimi_types(linear, count)
    if (cross := text.items("cross_attention_layers")) is not None:
        chosen = whole_numbers(cross)
        return ["cross" if index in chosen else "full" for index in range(count)]
    return None


def _class_types(text: ConfigView, count: int) -> list[str] | None:
    """One name a layer, where the class makes them from a period or a list of exceptions."""
    kind = text.model_type
    if kind in {"llama4", "llama4_text"}:
        every = text.whole("no_rope_layer_interval") or 4
        ropes = text.items("no_rope_layers") or [(i + 1) % every != 0 for i in range(count)]
        return _fit(["chunked_attention" if rope else "full_attention" for rope in ropes], count)
    if kind == "jamba":
        period, offset = text.whole("attn_layer_period") or 8, text.count("attn_layer_offset")
        return ["attention" if i % period == offset else "mamba" for i in range(count)]
    if kind == "bamba":
        indices = whole_numbers(text.items("attn_layer_indices") or [])
        return ["attention" if i in indices else "mamba" for i in range(count)]
    if kind == "granitemoehybrid":
        return ["mamba"] * count
    if kind == "zamba2":
        return None
    if kind in {"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"}:
        every = text.whole("full_attention_interval") or 4
        return ["linear_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    if kind in {"lfm2", "lfm2_moe"}:
        indices = whole_numbers(text.items("full_attn_idxs") or list(range(count)))
        return ["full_attention" if i in indices else "conv" for i in range(count)]
    if kind in {"bailing_hybrid", "bailing_moe_linear"}:
        every = text.whole("layer_group_size") or 1
        return [
            "full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(count)
        ]
    if kind == "minimax":
        return ["full_attention" if (i + 1) % 2 else "linear_attention" for i in range(count)]
    if kind == "cwm":
        return ["sliding_attention" if i % 4 else "full_attention" for i in range(count)]
    if kind in _WINDOW_EVERY:
        return _every(text, count, _WINDOW_EVERY[kind])
    return None


def _every(text: ConfigView, count: int, period: int) -> list[str]:
    """Sliding windows with a full layer every ``period``, or as ``sliding_window_pattern`` says."""
    stated = text.values.get("sliding_window_pattern", text.values.get("_sliding_window_pattern"))
    if isinstance(stated, str) and stated:
        return [
            "full_attention"
            if stated[i % len(stated)] == "G" or i == count - 1
            else "sliding_attention"
            for i in range(count)
        ]
    period = positive(stated) or text.stated("global_attn_every_n_layers") or period
    types = ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(count)]
    if text.model_type.startswith("gemma4"):
        types[-1] = "full_attention"
    return types


def _kimi_types(linear: Mapping[str, Any], count: int) -> list[str] | None:
    full = linear.get("full_attn_layers")
    if not isinstance(full, list):
        return None
    chosen = whole_numbers(full[:MOST_LAYERS])
    return ["full_attention" if i + 1 in chosen else "linear_attention" for i in range(count)]


def _block_type(block: object) -> str:
    if not isinstance(block, Mapping):
        return "unknown"
    if isinstance(kind := block.get("block_type"), str):
        return kind
    attention = block.get("attention")
    skipped = isinstance(attention, Mapping) and (
        attention.get("no_op") or attention.get("replace_with_linear")
    )
    return "mlp" if skipped else "full_attention"


def _fit(names: list[str], count: int) -> list[str]:
    """``count`` names: a list of another length is cut, or its last name repeated."""
    return (names + [names[-1] if names else "unknown"] * count)[:count]
