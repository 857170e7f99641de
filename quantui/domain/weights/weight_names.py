"""What a tensor of a checkpoint is, by its name: role, layer, and how vLLM divides it over GPUs.

Names are those that transformers and the models' own code write; vLLM maps them to layers of the same split
(vllm/model_executor/models/*.py: ColumnParallelLinear, RowParallelLinear, QKVParallelLinear, VocabParallelEmbedding).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.weights.weight_groups import WeightRole, WeightSplit, WeightStage

_VISION = re.compile(
    r"(?:^|\.)(?:visual|vision|vision_tower|vision_model|vision_encoder|vision_backbone|vision_embed_tokens|vit|vpm"
    r"|resampler|image_newline|image_encoder|multi_modal_projector|mm_projector|mm_merger|aligner|projector|connector"
    r"|patch_merger|patch_merger_norm|pre_mm_projector_norm|vision_language_adapter|audio_tower|audio_model"
    r"|audio_encoder|audio|embed_vision|embed_audio|img_projection|img_processor|vision_projector|modality_projection"
    r"|language_projection|qformer|resampler_model)(?:\.|$)|^mlp1\.|^model\.mlp1\."
)
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer|decoder_layers)\.(\d+)(?=\.|$)")
_EXPERT = re.compile(r"(?<=experts\.)\d+(?=\.|$)")
_NOT_LOADED = re.compile(
    r"rotary_emb\.inv_freq|\.masked_bias$|(?:^|\.)attn\.bias$|attention\.bias$|(?:^|\.)mtp(?:_block|_layers|s)?(?:\.|$)"
    r"|^talker\.|^token2wav\.|^code2wav\.|rotary_pos_emb|\.rotary_emb\.|(?:^|\.)eagle(?:\.|$)"
)
PARTS = re.compile(
    r"(?P<scale>\.weight\.absmax|\.weight\.nested_absmax|\.qzeros|\.scales|\.weight_scale(?:_inv|_2)?|\.scale|_scale_inv"
    r"|\.weight_zero_point|\.SCB|_scales|_weight_scale(?:_inv|_2)?)$"
    r"|(?P<dropped>\.weight\.quant_map|\.weight\.nested_quant_map|\.weight\.quant_state\.[\w]+|\.g_idx|\.weight_g_idx"
    r"|\.weight_shape|\.weight_format|\.input_scale|\.input_global_scale|\.weight_global_scale|\.activation_scale"
    r"|\.[kv]_scale|\.q_scale|\.output_scale|_input_scale)$"
    r"|(?P<packed>\.qweight|\.weight_packed|_blocks)$"
    r"|(?P<weight>\.weight)$"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COLUMN = _words(
    "q_proj up_proj gate_proj gate_up_proj w1 w3 wq fc1 fc_in c_fc dense_h_to_4h query_key_value c_attn"
    " qkv_proj Wqkv wqkv W_pack q_b_proj kv_b_proj in_proj in_proj_qkvz in_proj_ba in_proj_qkv in_proj_z"
    " in_proj_a in_proj_b dt_proj g_proj f_b_proj g_b_proj b_proj gate_up up v1 input_linear attention_qkv"
    " wo_gate output_gate query key_value q_conv1d k_conv1d v_conv1d conv1d linear_1 sinks A_log D dt_bias"
    " q_proj_weight wi wi_0 wi_1"
)
_KV = _words("k_proj v_proj wk wv")
_ROW = _words(
    "o_proj down_proj w2 out_proj c_proj dense dense_4h_to_h fc2 fc_out wo output_linear out_lin x_proj"
    " attn_out attention_dense ff_out linear_2"
)
_EMBEDDINGS = _words(
    "embed_tokens wte word_embeddings embed_in tok_embeddings embedding embeddings embed_tokens_per_layer"
    " embed_positions wpe position_embeddings token_type_embeddings"
)
_POSITIONS = _words("embed_positions wpe position_embeddings token_type_embeddings")
_HEADS = _words("lm_head embed_out output output_layer score classifier")
_ROUTERS = _words(
    "gate router shared_expert_gate router_gate e_score_correction_bias expert_bias moe_statics wg modality_router"
)
_CONVOLUTIONS = _words("conv1d conv q_conv1d k_conv1d v_conv1d short_conv")
_STATES = _words("A_log D dt_bias A")


@dataclass(frozen=True, slots=True)
class NamedWeight:
    """What the name tells. ``template`` has ``{}`` for the layer's and the expert's index."""

    role: WeightRole
    template: str
    layer: int | None
    split: WeightSplit
    stage: WeightStage


def is_loaded(name: str, layers: int | None) -> bool:
    """Whether vLLM loads the tensor when it serves the model alone.

    Left out are buffers, layers of multi-token prediction (beyond the last layer, or named so) and speech decoders.
    """
    if _NOT_LOADED.search(name):
        return False
    if layers is None or _VISION.search(name):
        return True
    found = _LAYER.search(name)
    return found is None or int(found.group(1)) < layers


def is_bias(name: str) -> bool:
    """Whether the tensor is added to a module's output; a router's correction and a state's bias are their own."""
    last = name.rsplit(".", 1)[-1]
    return last == "bias" or (last.endswith("_bias") and last not in _STATES | _ROUTERS)


def named_weight(module: str, *, vector: bool = False, bias: bool = False) -> NamedWeight:
    """Classify ``module``, a tensor's name without ``.weight``; ``vector`` when it has one dimension."""
    if bias:
        module = module.removesuffix(".bias").removesuffix("_bias")
    template = _EXPERT.sub("{}", module)
    found = _LAYER.search(module)
    layer: int | None = None
    if _VISION.search(module):
        split: WeightSplit = "none" if vector else "column"
        return NamedWeight("vision", _LAYER.sub(".layers.{}", template), None, split, "first")
    if found is not None:
        layer = int(found.group(1))
        at = _LAYER.search(template)
        if at is not None:
            template = template[: at.start(1)] + "{}" + template[at.end(1) :]
    path = module.split(".")
    last = path[-1]
    stage: WeightStage = "layer" if layer is not None else "first"
    role, split = _role(path, last, vector=vector, in_layer=layer is not None)
    if bias and role in {"linear", "expert", "head", "other", "router"}:
        role, split = "bias", ("none" if split == "row" else split)
    if layer is None and role in {"head", "norm", "bias", "other", "linear"}:
        early = "emb" in module.lower() or "project_in" in module
        stage = "first" if early and role != "head" else "last"
    return NamedWeight(role, template, layer, split, stage)


def _role(
    path: list[str], last: str, *, vector: bool, in_layer: bool
) -> tuple[WeightRole, WeightSplit]:
    if last in _STATES and in_layer:
        return "state", "column"
    if last in _CONVOLUTIONS:
        return "convolution", "column"
    if (
        any(part == "experts" or part.startswith("experts.") for part in path)
        and "shared" not in last
    ):
        return "expert", "experts"
    if not in_layer and (last in _EMBEDDINGS or "embeddings" in path):
        return "embedding", "none" if last in _POSITIONS else "vocabulary"
    if not in_layer and last in _HEADS:
        return "head", "vocabulary"
    if in_layer and "altup" in path and not last.endswith(("router", "norm")):
        return "other", "none"
    if last in _ROUTERS or (len(path) > 1 and path[-2] in {"router", "moe_statics"}):
        return "router", "none"
    if (
        "norm" in last.lower()
        or last.startswith("ln_")
        or last.endswith("_ln")
        or last in {"ln", "ln1", "ln2"}
    ):
        return "norm", "none"
    if any("norm" in part.lower() for part in path[-2:]):
        return "norm", "none"
    if last in _KV:
        return "linear", "kv_heads"
    if last in _COLUMN and not (vector and last == "sinks"):
        return "linear", "column"
    if last in _ROW:
        return "linear", "row"
    if vector:
        return "other", "column" if last == "sinks" else "none"
    return ("linear" if in_layer or last.startswith("project_") else "other"), "none"
