"""Routed experts of a mixture-of-experts model: how many, how large, in which layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.architecture.config_view import positive, whole_numbers
from quantui.domain.architecture.layer_schedule import layer_count

if TYPE_CHECKING:
    from quantui.domain.architecture.config_view import ConfigView

_EXPERTS = (
    "num_experts",
    "moe_num_experts",
    "n_routed_experts",
    "num_local_experts",
    "num_routed_experts",
)
_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
_SIZE = (
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "expert_hidden_dim",
    "moe_ffn_hidden_size",
)


@dataclass(frozen=True, slots=True)
class ExpertFacts:
    """``layers`` are the indices that have experts; 0 experts is a dense model."""

    experts: int = 0
    per_token: int | None = None
    intermediate_size: int | None = None
    shared: int = 0
    shared_size: int = 0
    """Inner size of all shared experts of one layer together."""
    layers: tuple[int, ...] = ()


def expert_facts(text: ConfigView) -> ExpertFacts:
    """The experts of a model, as vLLM reads its config (get_num_experts, 0.32); a dense model's are none."""
    kind = text.model_type
    experts = _first(text, *_EXPERTS)
    if kind.startswith("gemma4") and not text.flag("enable_moe_block"):
        experts = None
    own = text.values.get("ffn_config")
    if isinstance(own, Mapping):
        experts = positive(own.get("moe_num_experts")) or experts
    if experts is None or experts < 2:
        return ExpertFacts()
    layers = _layers_with_experts(text)
    if not layers:
        return ExpertFacts()
    size = _first(text, *_SIZE)
    per_token = _first(text, *_PER_TOKEN)
    if isinstance(own, Mapping):
        size = positive(own.get("ffn_hidden_size")) or size
        per_token = positive(own.get("moe_top_k")) or per_token
    size = size or text.whole("intermediate_size", "ffn_hidden_size")
    shared, shared_size = _shared(text, size)
    return ExpertFacts(experts, per_token, size, shared, shared_size, layers)


def _shared(text: ConfigView, size: int | None) -> tuple[int, int]:
    """Shared experts of a layer, and their inner size together."""
    kind = text.model_type
    if kind in {"llama4", "llama4_text"}:
        return 1, text.count("intermediate_size")
    if stated := _first(text, "shared_expert_intermediate_size", "shared_intermediate_size"):
        return 1, stated
    if kind == "nemotron_h":
        shared = text.count("n_shared_experts")
        return shared, shared * text.count("moe_shared_expert_intermediate_size")
    number = _first(
        text,
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_shared_experts",
        "num_shared_expert",
    )
    if number is None:
        return 0, 0
    own = None
    if kind.startswith("bailing"):
        own = text.whole("moe_shared_expert_intermediate_size")
    return number, own or number * (size or 0)


def _layers_with_experts(text: ConfigView) -> tuple[int, ...]:
    """Which layers have experts and not one MLP."""
    count, kind = layer_count(text), text.model_type
    if count is None:
        return ()
    every = range(count)
    pattern = text.values.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        letters = [letter for letter in pattern if letter != "|"]
        return tuple(i for i in every if i < len(letters) and letters[i] == "E")
    types = text.items("mlp_layer_types")
    if types is not None:
        return tuple(
            i for i in every if i < len(types) and types[i] in ("sparse", "moe", "hash_moe")
        )
    blocks = text.items("layers_block_type")
    if kind == "nemotron_h":
        return tuple(i for i in every if blocks and i < len(blocks) and blocks[i] == "moe")
    if kind in {"llama4", "llama4_text"}:
        stated = text.items("moe_layers")
        step = text.whole("interleave_moe_layer_step") or 1
        chosen = whole_numbers(stated if stated is not None else list(range(step - 1, count, step)))
        return tuple(i for i in every if i in chosen)
    if kind == "jamba":
        period, offset = text.whole("expert_layer_period") or 2, text.count("expert_layer_offset")
        return tuple(i for i in every if i % period == offset)
    if kind in {"qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_vl_moe_text", "qwen3_omni_moe_text"}:
        step = text.whole("decoder_sparse_step") or 1
        dense = whole_numbers(text.items("mlp_only_layers") or [])
        return tuple(i for i in every if i not in dense and (i + 1) % step == 0)
    if kind in {"ernie4_5_moe", "ernie4_5_vl_moe_text"}:
        start = _first_or_zero(text, "moe_layer_start_index")
        end = text.values.get("moe_layer_end_index")
        end = end[0] if isinstance(end, list) and end else end
        last = end if isinstance(end, int) and end >= 0 else count - 1
        step = text.whole("moe_layer_interval") or 1
        return tuple(i for i in every if start <= i <= last and (i + 1) % step == 0)
    if (frequencies := text.items("moe_layer_freq")) is not None:
        return tuple(i for i in every if i < len(frequencies) and frequencies[i])
    if kind in {"lfm2_moe"}:
        return tuple(i for i in every if i >= text.count("num_dense_layers"))
    if kind == "afmoe":
        return tuple(i for i in every if i >= text.count("num_dense_layers"))
    if kind == "step3_text" or text.has("moe_layers_enum"):
        chosen_text = text.text("moe_layers_enum") or ""
        numbers = {int(n) for n in chosen_text.split(",") if n.strip().isdigit()}
        return tuple(i for i in every if i in numbers) if numbers else tuple(every)[1:]
    first = _first_dense(text)
    step = text.whole("moe_layer_freq") or 1
    return tuple(i for i in every if i >= first and i % step == 0)


def _first_dense(text: ConfigView) -> int:
    for name in ("first_k_dense_replace", "moe_first_k_dense", "num_dense_layers"):
        stated = text.values.get(name, text.defaults.get(name))
        if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0:
            return stated
    return 0


def _first_or_zero(text: ConfigView, name: str) -> int:
    stated = text.values.get(name, text.defaults.get(name))
    if isinstance(stated, list) and stated:
        stated = stated[0]
    return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0 else 0


def _first(text: ConfigView, *names: str) -> int | None:
    """A number, or the first of a list: ERNIE gives one for text and one for images."""
    for name in names:
        value = text.values.get(name)
        if isinstance(value, list) and value and (found := positive(value[0])):
            return found
        if isinstance(value, int) and not isinstance(value, bool) and value == 0:
            return None
        if found := positive(value):
            return found
    return text.whole(*names)
