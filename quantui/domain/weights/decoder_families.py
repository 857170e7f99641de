"""What sets one family of decoders apart in its weights: norms, biases, the MLP's form, learned positions.

Most are Llama's layer with a trait or two. Facts are those of transformers 5.19 (models/*/modeling_*.py), held to
it by a test that counts the parameters of each on torch's meta device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.architecture.config_view import ConfigView

Trait = bool | str
"""Whether there is one, or the config field that says so."""


@dataclass(frozen=True, slots=True)
class Family:
    """The traits of one ``model_type``; the defaults are Llama's, without biases."""

    norm: int = 1
    """Vectors of one norm: 1 weight, 2 with a bias, 0 without parameters."""
    norms: int = 2
    """Norms of a layer that are as wide as the hidden size."""
    final_norm: bool = True
    qkv_bias: Trait = "attention_bias"
    output_bias: Trait = "attention_bias"
    gated: bool = True
    mlp_bias: Trait = "mlp_bias"
    qk_norm: str = ""
    """``head``: one head wide; ``biased``: that, with a bias; ``full``, ``heads``: as wide as all heads."""
    qk_norm_if: str = ""
    """The field that says whether there is one; empty: always."""
    positions: str = ""
    """The field with the number of learned positions; empty: none."""
    extra_positions: int = 0
    embedding_norm: bool = False
    head_bias: Trait = False
    router_bias: Trait = False
    router_correction: bool = False
    """A bias of the router that is not trained with it, one value an expert (``e_score_correction_bias``)."""
    shared_gate: bool = False
    sinks: bool = False
    query_gate: bool = False
    """The query projection makes a gate as well: twice as many rows."""


_LLAMA = Family()
_PLAIN = Family(qkv_bias=False, output_bias=False, mlp_bias=False)
_GPT = Family(norm=2, qkv_bias=True, output_bias=True, gated=False, mlp_bias=True)
_QWEN2 = Family(qkv_bias=True, output_bias=False, mlp_bias=False)
_QWEN3 = Family(qk_norm="head", mlp_bias=False)
_GEMMA3 = Family(norms=4, qk_norm="head", mlp_bias=False)
_OLMO2 = Family(qk_norm="full", mlp_bias=False)
_DEEPSEEK3 = Family(mlp_bias=False, router_correction=True)
_QWEN_NEXT = Family(qk_norm="head", mlp_bias=False, shared_gate=True, query_gate=True)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "llama4_text": Family(mlp_bias=False),
    "mllama_text_model": Family(qkv_bias=False, output_bias=False, mlp_bias=False),
    "mistral": _PLAIN,
    "ministral": _PLAIN,
    "ministral3": _PLAIN,
    "mixtral": _PLAIN,
    "yi": _PLAIN,
    "baichuan": _PLAIN,
    "internlm": Family(qkv_bias="bias", output_bias="bias", mlp_bias=False),
    "internlm2": Family(qkv_bias="bias", output_bias="bias", mlp_bias=False),
    "internlm3": Family(qkv_bias="qkv_bias", output_bias="bias", mlp_bias="bias"),
    "qwen": Family(qkv_bias=True, output_bias=False, mlp_bias=False),
    "qwen2": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_5_omni_text": _QWEN2,
    "qwen2_moe": Family(qkv_bias="qkv_bias", output_bias=False, mlp_bias=False, shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "qwen3_omni_moe_text": _QWEN3,
    "qwen3_next": _QWEN_NEXT,
    "qwen3_5_text": _QWEN_NEXT,
    "qwen3_5_moe_text": _QWEN_NEXT,
    "gemma": Family(mlp_bias=False),
    "gemma2": Family(norms=4, mlp_bias=False),
    "gemma3_text": _GEMMA3,
    "gemma3n_text": _GEMMA3,
    "gemma4_text": _GEMMA3,
    "gemma4_unified_text": _GEMMA3,
    "phi": Family(
        norm=2,
        norms=1,
        qkv_bias=True,
        output_bias=True,
        gated=False,
        mlp_bias=True,
        qk_norm="biased",
        qk_norm_if="qk_layernorm",
        head_bias=True,
    ),
    "phi3": _PLAIN,
    "phi4mm": _PLAIN,
    "phimoe": Family(norm=2, mlp_bias=False, head_bias="lm_head_bias"),
    "gpt2": Family(
        norm=2, qkv_bias=True, output_bias=True, gated=False, mlp_bias=True, positions="n_positions"
    ),
    "gpt_bigcode": Family(
        norm=2, qkv_bias=True, output_bias=True, gated=False, mlp_bias=True, positions="n_positions"
    ),
    "gpt_neo": Family(
        norm=2,
        qkv_bias=False,
        output_bias=True,
        gated=False,
        mlp_bias=True,
        positions="max_position_embeddings",
    ),
    "gptj": Family(
        norm=2,
        norms=1,
        qkv_bias=False,
        output_bias=False,
        gated=False,
        mlp_bias=True,
        head_bias=True,
    ),
    "codegen": Family(
        norm=2,
        norms=1,
        qkv_bias=False,
        output_bias=False,
        gated=False,
        mlp_bias=True,
        head_bias=True,
    ),
    "gpt_neox": Family(norm=2, gated=False, mlp_bias=True),
    "opt": Family(
        norm=2,
        qkv_bias="enable_bias",
        output_bias="enable_bias",
        gated=False,
        mlp_bias="enable_bias",
        positions="max_position_embeddings",
        extra_positions=2,
    ),
    "bloom": Family(
        norm=2, qkv_bias=True, output_bias=True, gated=False, mlp_bias=True, embedding_norm=True
    ),
    "falcon": Family(norm=2, qkv_bias="bias", output_bias="bias", gated=False, mlp_bias="bias"),
    "mpt": Family(qkv_bias=False, output_bias=False, gated=False, mlp_bias=False),
    "stablelm": Family(
        norm=2,
        qkv_bias="use_qkv_bias",
        output_bias=False,
        mlp_bias=False,
        qk_norm="heads",
        qk_norm_if="qk_layernorm",
    ),
    "starcoder2": Family(
        norm=2, qkv_bias="use_bias", output_bias="use_bias", gated=False, mlp_bias="use_bias"
    ),
    "cohere": Family(norms=1, qk_norm="heads", qk_norm_if="use_qk_norm", mlp_bias=False),
    "cohere2": Family(norms=1, mlp_bias=False),
    "olmo": Family(norm=0, mlp_bias=False),
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "olmoe": _OLMO2,
    "chatglm": Family(
        qkv_bias="add_qkv_bias", output_bias="add_bias_linear", mlp_bias="add_bias_linear"
    ),
    "glm": Family(output_bias=False, mlp_bias=False),
    "glm4": Family(norms=4, output_bias=False, mlp_bias=False),
    "glm4v_text": Family(norms=4, output_bias=False, mlp_bias=False),
    "glm4_moe": Family(
        output_bias=False,
        mlp_bias=False,
        qk_norm="head",
        qk_norm_if="use_qk_norm",
        router_correction=True,
    ),
    "glm4v_moe_text": Family(output_bias=False, mlp_bias=False, router_correction=True),
    "granite": _LLAMA,
    "granitemoe": Family(mlp_bias=False),
    "granitemoeshared": Family(mlp_bias=False),
    "granitemoehybrid": Family(mlp_bias=False),
    "exaone": _PLAIN,
    "exaone4": Family(qkv_bias=False, output_bias=False, mlp_bias=False, qk_norm="head"),
    "smollm3": _LLAMA,
    "seed_oss": Family(output_bias="attention_out_bias"),
    "arcee": Family(gated=False),
    "apertus": Family(gated=False, qk_norm="head"),
    "nemotron": Family(norm=2, gated=False),
    "helium": Family(output_bias=False),
    "ernie4_5": Family(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias"),
    "ernie4_5_moe": Family(
        qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", router_correction=True
    ),
    "hunyuan_v1_dense": Family(qk_norm="head", mlp_bias=False),
    "hunyuan_v1_moe": Family(qk_norm="head", mlp_bias=False),
    "dots1": Family(qk_norm="head", mlp_bias=False, router_correction=True),
    "minimax_m2": Family(
        qkv_bias=False, output_bias=False, mlp_bias=False, qk_norm="full", router_correction=True
    ),
    "gpt_oss": Family(mlp_bias=True, router_bias=True, sinks=True),
    "deepseek_v2": Family(mlp_bias=False),
    "deepseek_v3": _DEEPSEEK3,
    "deepseek_v32": _DEEPSEEK3,
    "kimi_k2": _DEEPSEEK3,
    "glm_moe_dsa": _DEEPSEEK3,
    "glm4_moe_lite": _DEEPSEEK3,
    "kimi_linear": _DEEPSEEK3,
    "mamba": _PLAIN,
    "mamba2": _PLAIN,
    "falcon_mamba": _PLAIN,
    "minicpm": _PLAIN,
    "minicpm3": _PLAIN,
    "jamba": _PLAIN,
    "bamba": _LLAMA,
    "nemotron_h": Family(norms=1, gated=False, router_correction=True),
    "falcon_h1": _LLAMA,
    "zamba2": Family(qkv_bias=False, output_bias=False, mlp_bias="add_bias_linear"),
    "lfm2": Family(qkv_bias=False, output_bias=False, mlp_bias=False, qk_norm="head"),
    "lfm2_moe": Family(qkv_bias=False, output_bias=False, mlp_bias=False, qk_norm="head"),
    "minimax": _PLAIN,
    "dbrx": Family(qkv_bias=False, output_bias=False, mlp_bias=False),
    "orion": Family(norm=2, qkv_bias=False, output_bias=False, mlp_bias=False),
    "persimmon": Family(
        norm=2,
        qkv_bias=True,
        output_bias=True,
        gated=False,
        mlp_bias=True,
        qk_norm="biased",
        qk_norm_if="qk_layernorm",
    ),
    "telechat2": Family(qkv_bias=False, output_bias=True, mlp_bias=False),
    "whisper": _GPT,
}


def family_of(model_type: str) -> Family | None:
    """The traits of a type; None for one that is not known, whose layers are then taken for Llama's."""
    return FAMILIES.get(model_type)


def trait(text: ConfigView, value: Trait) -> bool:
    """A trait that is fixed, or that a field of the config says."""
    return text.flag(value) if isinstance(value, str) else value
