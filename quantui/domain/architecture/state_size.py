"""Bytes of the state that one request keeps in one layer of a state-space, linear attention or convolution model.

Shapes are those of ``MambaStateShapeCalculator`` and dtypes those of ``MambaStateDtypeCalculator``
(vllm/model_executor/layers/mamba/mamba_utils.py, 0.32), for the whole model: tensor parallel divides them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantui.domain.architecture.config_view import positive

if TYPE_CHECKING:
    from quantui.domain.architecture.config_view import ConfigView

STATE_KINDS = frozenset({"mamba1", "mamba2", "gdn", "kda", "lightning", "conv"})
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


def state_bytes(text: ConfigView, kind: str, dtype_bytes: int) -> int | None:
    """Bytes a request and layer; None when the config lacks a size."""
    sizes = {
        "mamba1": _mamba1,
        "mamba2": _mamba2,
        "gdn": _gated_delta_net,
        "kda": _kimi_delta,
        "lightning": _lightning,
        "conv": _short_convolution,
    }
    made = sizes[kind](text)
    if made is None:
        return None
    convolution, recurrent = made
    return convolution * dtype_bytes + recurrent * _recurrent_width(text, kind, dtype_bytes)


def inner_size(text: ConfigView) -> int | None:
    """Channels of a Mamba mixer."""
    if (stated := text.whole("mamba_d_ssm")) is not None and text.model_type == "falcon_h1":
        return stated
    if text.model_type == "nemotron_h":
        heads, size = text.whole("mamba_num_heads"), text.whole("mamba_head_dim")
        return heads * size if heads and size else None
    hidden = text.whole("hidden_size", "d_model")
    expand = text.whole("mamba_expand", "expand") or 2
    if text.model_type in {"mamba", "falcon_mamba"} and (own := text.stated("intermediate_size")):
        return own
    return hidden * expand if hidden else None


def mamba2_sizes(text: ConfigView) -> tuple[int, int, int, int, int] | None:
    """Heads, head size, groups, state size, convolution width of a Mamba 2 mixer."""
    heads = text.whole("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
    inner = inner_size(text)
    if text.model_type == "mamba2" and heads and inner:
        # Its class has fields of the same meaning under plain names.
        size = text.whole("head_dim") or inner // heads
    elif heads and inner:
        size = text.whole("mamba_d_head", "mamba_head_dim", "mamba_headdim") or inner // heads
    else:
        return None
    groups = text.whole("mamba_n_groups", "mamba_ngroups", "n_groups") or 1
    state = text.whole("mamba_d_state", "ssm_state_size", "state_size")
    kernel = text.whole("mamba_d_conv", "conv_kernel") or 4
    return (heads, size, groups, state, kernel) if state else None


def _mamba1(text: ConfigView) -> tuple[int, int] | None:
    inner = inner_size(text)
    state = text.whole("mamba_d_state", "state_size")
    kernel = text.whole("mamba_d_conv", "conv_kernel") or 4
    return (inner * (kernel - 1), inner * state) if inner and state else None


def _mamba2(text: ConfigView) -> tuple[int, int] | None:
    sizes, inner = mamba2_sizes(text), inner_size(text)
    if sizes is None or inner is None:
        return None
    heads, size, groups, state, kernel = sizes
    return (inner + 2 * groups * state) * (kernel - 1), heads * size * state


def _gated_delta_net(text: ConfigView) -> tuple[int, int] | None:
    keys, values = text.whole("linear_num_key_heads"), text.whole("linear_num_value_heads")
    key, value = text.whole("linear_key_head_dim"), text.whole("linear_value_head_dim")
    kernel = text.whole("linear_conv_kernel_dim") or 4
    if not (keys and values and key and value):
        return None
    return (2 * keys * key + values * value) * (kernel - 1), values * value * key


def _kimi_delta(text: ConfigView) -> tuple[int, int] | None:
    own = text.values.get("linear_attn_config")
    given = own if isinstance(own, Mapping) else {}
    heads = positive(given.get("num_heads")) or text.whole("linear_num_heads")
    size = positive(given.get("head_dim")) or text.whole("linear_head_dim")
    kernel = positive(given.get("short_conv_kernel_size")) or text.whole("linear_conv_kernel_dim")
    if not (heads and size):
        return None
    return 3 * heads * size * ((kernel or 4) - 1), heads * size * size


def _lightning(text: ConfigView) -> tuple[int, int] | None:
    heads = text.whole("num_attention_heads")
    hidden = text.whole("hidden_size")
    size = text.whole("head_dim") or (hidden // heads if heads and hidden else None)
    return (0, heads * size * size) if heads and size else None


def _short_convolution(text: ConfigView) -> tuple[int, int] | None:
    channels = text.whole("conv_dim", "hidden_size")
    kernel = text.whole("conv_L_cache") or 3
    return (channels * (kernel - 1), 0) if channels else None


def _recurrent_width(text: ConfigView, kind: str, dtype_bytes: int) -> int:
    if kind == "kda":
        return 4
    # Nemotron-H and Qwen 3.5 name the dtype (vllm/model_executor/models/config.py).
    name = text.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    return _WIDTHS.get(name or "", dtype_bytes)
