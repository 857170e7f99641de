"""The weights of vision towers and of what joins them to the language model, from a config alone.

Forms are those of transformers 5.19 (models/*/modeling_*.py). vLLM splits their matrices over tensor parallel ranks
unless ``--mm-encoder-tp-mode data`` is given (vllm/model_executor/models/{clip,siglip,pixtral,qwen2_5_vl}.py, 0.32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.config_view import positive, whole_view
from quantui.domain.weights.weight_groups import WeightGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantui.domain.architecture.config_view import ConfigView


@dataclass
class _Tower:
    """The tower's groups so far, and the sizes that all its kinds have."""

    groups: list[WeightGroup]
    hidden: int
    inner: int
    layers: int
    patch: int
    image: int
    channels: int

    def matrix(
        self, name: str, rows: int, columns: int, count: int = 1, *, bias: bool = True
    ) -> None:
        """``count`` linear layers."""
        self._add(name, rows, columns, count, split=True)
        if bias:
            self.vector(name + ".bias", rows, count)

    def vector(self, name: str, width: int, count: int = 1) -> None:
        """``count`` vectors, or tables that every rank holds."""
        self._add(name, width, 1, count, split=False)

    def _add(self, name: str, rows: int, columns: int, count: int, *, split: bool) -> None:
        if rows > 0 and columns > 0 and count > 0:
            self.groups.append(
                WeightGroup(
                    "vision",
                    name,
                    rows * columns * count,
                    rows,
                    columns,
                    count,
                    "column" if split else "none",
                    "first",
                )
            )

    def blocks(
        self, *, norm: int, bias: bool, mlp_bias: bool, gated: bool = False, extra: int = 0
    ) -> None:
        """Transformer blocks: attention of four square matrices, an MLP, two norms and ``extra`` vectors."""
        size, inner, count = self.hidden, self.inner, self.layers
        self.matrix("visual.blocks.attn", size, size, 4 * count, bias=bias)
        self.matrix("visual.blocks.mlp.up", inner, size, count * (2 if gated else 1), bias=mlp_bias)
        self.matrix("visual.blocks.mlp.down", size, inner, count, bias=mlp_bias)
        self.vector("visual.blocks.norm", size, count * (2 * norm + extra))


def vision_weights(
    config: Mapping[str, Any], vision: ConfigView, text: ConfigView
) -> tuple[tuple[WeightGroup, ...], tuple[str, ...]]:
    """The tower and its projector, and notes; a tower of a form that is not known is told and not counted."""
    forms: dict[str, Callable[[_Tower, ConfigView, ConfigView, int], None]] = {
        "siglip_vision_model": _siglip,
        "clip_vision_model": _clip,
        "pixtral": _pixtral,
        "qwen2_vl": _qwen2,
        "qwen2_vl_vision": _qwen2,
        "qwen2_5_vl": _qwen2_5,
        "qwen2_5_vl_vision": _qwen2_5,
        "qwen3_vl": _qwen3,
        "qwen3_vl_vision": _qwen3,
        "qwen3_vl_moe": _qwen3,
        "qwen3_vl_moe_vision": _qwen3,
        "qwen3_5": _qwen3,
        "qwen3_5_vision": _qwen3,
        "qwen3_5_moe": _qwen3,
        "qwen3_5_moe_vision": _qwen3,
        "llama4_vision_model": _llama4,
        "mllama_vision_model": _mllama,
        "internvl_vision": _internvl,
    }
    form, hidden = forms.get(vision.model_type), vision.whole("hidden_size")
    width = text.whole("hidden_size")
    layers = vision.whole("num_hidden_layers", "depth")
    name = vision.model_type or "vision"
    if form is None or hidden is None or width is None or layers is None or layers > 1000:
        return (), (f"the {name} tower is not counted: its form is not known",)
    tower = _Tower(
        [],
        hidden,
        vision.whole("intermediate_size") or 4 * hidden,
        layers,
        _side(vision, "patch_size") or 14,
        _side(vision, "image_size") or 224,
        vision.whole("num_channels", "in_channels", "in_chans") or 3,
    )
    form(tower, vision, whole_view(config), width)
    return tuple(tower.groups), ()


def _side(vision: ConfigView, name: str) -> int | None:
    """A size that may be given for both sides."""
    value = vision.values.get(name)
    if isinstance(value, list) and value:
        return positive(value[0])
    return vision.whole(name)


def _patches(tower: _Tower) -> int:
    return (tower.image // tower.patch) ** 2


def _pixels(tower: _Tower) -> int:
    return tower.channels * tower.patch**2


def _projector(tower: _Tower, whole: ConfigView, source: int, width: int) -> None:
    """LLaVA's two layers, or Gemma's one matrix and norm."""
    if whole.model_type in {"gemma3", "paligemma"}:
        tower.vector("multi_modal_projector", source * width)
        tower.vector("multi_modal_projector.norm", source)
        return
    bias = whole.flag("multimodal_projector_bias", otherwise=True)
    if whole.model_type == "mistral3":
        merge = (whole.whole("spatial_merge_size") or 2) ** 2
        tower.vector("multi_modal_projector.norm", source)
        tower.matrix("multi_modal_projector.patch_merger", source, source * merge, bias=False)
    features = whole.items("vision_feature_layer")
    tower.matrix("multi_modal_projector.linear_1", width, source * len(features or [0]), bias=bias)
    tower.matrix("multi_modal_projector.linear_2", width, width, bias=bias)


def _siglip(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    tower.vector("visual.patch_embedding", tower.hidden * (_pixels(tower) + 1))
    tower.vector("visual.position_embedding", tower.hidden * _patches(tower))
    tower.blocks(norm=2, bias=True, mlp_bias=True)
    tower.vector("visual.post_layernorm", 2 * tower.hidden)
    _projector(tower, whole, tower.hidden, width)


def _clip(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    tower.vector("visual.patch_embedding", tower.hidden * _pixels(tower))
    tower.vector("visual.position_embedding", tower.hidden * (_patches(tower) + 2))
    tower.blocks(norm=2, bias=True, mlp_bias=True)
    tower.vector("visual.layernorms", 4 * tower.hidden)
    _projector(tower, whole, tower.hidden, width)


def _pixtral(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    tower.vector("visual.patch_conv", tower.hidden * _pixels(tower))
    tower.blocks(norm=1, bias=False, mlp_bias=False, gated=True)
    tower.vector("visual.ln_pre", tower.hidden)
    _projector(tower, whole, tower.hidden, width)


def _qwen2(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    out, tower.hidden = tower.hidden, vision.whole("embed_dim") or tower.hidden
    tower.inner = int(tower.hidden * (vision.number("mlp_ratio") or 4))
    _video_patches(tower, vision, bias=False)
    tower.blocks(norm=2, bias=True, mlp_bias=True)
    _merger(tower, vision, out, norm=2)


def _qwen2_5(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    _video_patches(tower, vision, bias=False)
    tower.blocks(norm=1, bias=True, mlp_bias=True, gated=True)
    _merger(tower, vision, vision.whole("out_hidden_size") or width, norm=1)


def _qwen3(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    _video_patches(tower, vision, bias=True)
    positions = vision.whole("num_position_embeddings") or 2304
    tower.vector("visual.pos_embed", tower.hidden * positions)
    tower.blocks(norm=2, bias=True, mlp_bias=True)
    out = vision.whole("out_hidden_size") or width
    _merger(tower, vision, out, norm=2)
    merged = tower.hidden * (vision.whole("spatial_merge_size") or 2) ** 2
    deep = len(vision.items("deepstack_visual_indexes") or [])
    tower.matrix("visual.deepstack.linear_fc1", merged, merged, deep)
    tower.matrix("visual.deepstack.linear_fc2", out, merged, deep)
    tower.vector("visual.deepstack.norm", 2 * merged, deep)


def _video_patches(tower: _Tower, vision: ConfigView, *, bias: bool) -> None:
    frames = vision.whole("temporal_patch_size") or 2
    tower.vector("visual.patch_embed", tower.hidden * (_pixels(tower) * frames + int(bias)))


def _merger(tower: _Tower, vision: ConfigView, out: int, *, norm: int) -> None:
    merged = tower.hidden * (vision.whole("spatial_merge_size") or 2) ** 2
    tower.vector("visual.merger.norm", norm * tower.hidden)
    tower.matrix("visual.merger.mlp.0", merged, merged)
    tower.matrix("visual.merger.mlp.2", out, merged)


def _llama4(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    tower.vector("visual.patch_embedding", tower.hidden * _pixels(tower))
    tower.vector("visual.positions", tower.hidden * (_patches(tower) + 2))
    tower.blocks(norm=2, bias=True, mlp_bias=True)
    tower.vector("visual.layernorms", 4 * tower.hidden)
    middle = vision.whole("projector_input_dim") or 4096
    out = vision.whole("projector_output_dim") or 4096
    shuffled = int(tower.hidden / (vision.number("pixel_shuffle_ratio") or 0.5) ** 2)
    tower.matrix("visual.adapter.fc1", middle, shuffled, bias=False)
    tower.matrix("visual.adapter.fc2", out, middle, bias=False)
    tower.matrix(
        "multi_modal_projector", width, vision.whole("vision_output_dim") or out, bias=False
    )


def _mllama(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    deep = vision.whole("num_global_layers") or 8
    tiles = vision.whole("max_num_tiles") or 4
    # Every arrangement of tiles that fits, and none: 8 and 1 for four tiles.
    ratios = sum(1 for a in range(1, tiles + 1) for b in range(1, tiles + 1) if a * b <= tiles) + 1
    positions = _patches(tower) + 1
    tower.vector("visual.patch_embedding", tower.hidden * _pixels(tower))
    tower.vector("visual.positions", tower.hidden * (positions + 1) + 1)
    tower.vector("visual.tile_positions", ratios * tiles * tower.hidden * (positions + 2) + 2)
    tower.layers += deep
    tower.blocks(norm=2, bias=False, mlp_bias=True)
    tower.vector("visual.gates", 2 * deep)
    tower.vector("visual.layernorms", 4 * tower.hidden)
    tower.matrix("multi_modal_projector", width, vision.whole("vision_output_dim") or 7680)


def _internvl(tower: _Tower, vision: ConfigView, whole: ConfigView, width: int) -> None:
    norm = 1 if vision.text("norm_type") == "rms_norm" else 2
    tower.vector("visual.patch_embeddings", tower.hidden * (_pixels(tower) + 1))
    tower.vector("visual.positions", tower.hidden * (_patches(tower) + 2))
    bias = vision.flag("attention_bias")
    # The output matrix has a bias in any case; two scales a layer.
    tower.blocks(norm=norm, bias=bias, mlp_bias=True, extra=2 if bias else 3)
    if vision.flag("use_qk_norm"):
        tower.vector("visual.qk_norm", tower.hidden, 2 * tower.layers)
    ratio = whole.number("downsample_ratio") or 0.5
    merged = int(tower.hidden / ratio**2)
    tower.vector("multi_modal_projector.layer_norm", 2 * merged)
    tower.matrix("multi_modal_projector.linear_1", width, merged)
    tower.matrix("multi_modal_projector.linear_2", width, width)
