"""From a recipe to the scheme of compressed-tensors: widths, groups, symmetry, activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    from quantizing.job import Recipe

GROUPED = frozenset({"awq", "gptq", "w4a16", "w8a16", "rotations_w4a16"})
"""Methods whose group size and symmetry are the recipe's."""

_PRESETS = {
    "awq": "W4A16", "w4a16": "W4A16", "rotations_w4a16": "W4A16", "w8a16": "W8A16",
    "fp8_static": "FP8", "fp8_dynamic": "FP8_DYNAMIC", "fp8_block": "FP8_BLOCK",
    "int8_w8a8": "W8A8", "rotations_w8a8": "W8A8", "w4a8": "W4AFP8",
    "mxfp4": "MXFP4", "mxfp8": "MXFP8",
}  # fmt: skip


def preset(recipe: Recipe, *, with_data: bool) -> str:
    """The preset's name (compressed-tensors 0.19, quantization/quant_scheme.py, PRESET_SCHEMES).

    NVFP4 scales activations by what calibration saw; without data the weights alone are quantized.

    Raises:
        WorkerError: ``quantize.unknown-method``.
    """
    if recipe.method == "gptq":
        return {4: "W4A16", 8: "W8A16"}.get(recipe.bits) or _unknown(recipe)
    if recipe.method == "nvfp4":
        return "NVFP4" if with_data else "NVFP4A16"
    return _PRESETS.get(recipe.method) or _unknown(recipe)


def _unknown(recipe: Recipe) -> str:
    raise WorkerError(
        "quantize.unknown-method",
        f"llm-compressor does not make {recipe.method} of {recipe.bits} bit.",
        fix="Choose another width, or another producer.",
        exit_code=2,
    )


def scheme(recipe: Recipe, *, with_data: bool, scales: Any = None) -> Any:  # noqa: ANN401
    """The ``QuantizationScheme`` for all linear layers. ``scales``: the dtype that scales are rounded to.

    Raises:
        WorkerError: ``quantize.unknown-method``.
    """
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme

    found = preset_name_to_scheme(preset(recipe, with_data=with_data), ["Linear"])
    changed: dict[str, Any] = {}
    if recipe.method in GROUPED:
        group = 128 if recipe.group_size is None else recipe.group_size
        changed = {
            "strategy": "channel" if group == -1 else "group",
            "group_size": None if group == -1 else group,
            "symmetric": recipe.symmetric is not False,
            # Read from the other fields again.
            "observer": None,
        }
    # Formats with scales of 8 bit (NVFP4, MXFP4) have said so themselves.
    if scales is not None and found.weights.scale_dtype is None:
        changed["scale_dtype"] = scales
    if recipe.method == "w4a8":
        # Two values a byte, as vLLM reads it (0.32, compressed_tensors_w4a8_fp8.py); the library would
        # store one.
        found.format = CompressionFormat.pack_quantized
    if changed:
        found.weights = QuantizationArgs(**{**found.weights.model_dump(), **changed})
    return found


def refuse_without_data(recipe: Recipe, *, with_data: bool) -> None:
    """Refuse a method that learns from texts and has been given none.

    Raises:
        WorkerError: ``quantize.needs-data``.
    """
    if recipe.method in ("awq", "gptq", "fp8_static") and not with_data:
        raise WorkerError(
            "quantize.needs-data",
            f"{recipe.method} needs calibration texts.",
            "It measures what goes into each layer.",
            "Give some (--calibration), or take the built-in ones.",
            exit_code=2,
        )


def group_size(recipe: Recipe) -> int | None:
    """Input features that share a scale, as far as they must divide a layer's; None: any size fits."""
    if recipe.method in GROUPED:
        group = 128 if recipe.group_size is None else recipe.group_size
        return None if group == -1 else group
    fixed = {"w4a8": 128, "nvfp4": 16, "mxfp4": 32, "mxfp8": 32, "fp8_block": 128}
    return fixed.get(recipe.method)
