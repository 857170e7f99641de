"""Whether llm-compressor's mappings of norms to the layers behind them fit a model, asked before the work."""

from __future__ import annotations

from typing import Any

from quantui_wire import WorkerError, notice


def refuse_unknown(model: Any, method: str) -> None:  # noqa: ANN401 - transformers has no stubs
    """Refuse a model whose layers the mappings of AWQ or SmoothQuant do not find.

    An architecture the library does not list takes the mappings of Llama; that is told, and what comes of
    it is compared with the model before anything is rounded.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``.
    """
    architecture = type(model).__name__
    listed, mappings = _mappings(model, awq=method == "awq")
    try:
        found = [_count(model, mapping) for mapping in mappings]
        why = "" if any(found) else "None of the layers it would scale is there."
    except ValueError as error:
        why = f"Its layers do not come in the sets that are scaled together: {error}"[:400]
    if why:
        raise WorkerError(
            "quantize.unsupported-architecture",
            f"llm-compressor cannot scale the layers of {architecture} for {method}.",
            why,
            "Choose gptq, w4a16 or autoround for 4 bit, fp8_dynamic or w8a16 for 8 bit.",
            exit_code=3,
        )
    if not listed:
        notice(
            f"llm-compressor does not list {architecture} for {method}: the mappings of Llama are taken.",
            level="warning",
        )


def _mappings(model: Any, *, awq: bool) -> tuple[bool, list[list[str]]]:  # noqa: ANN401
    """Whether the model's class is listed, and the names that belong together, mapping by mapping."""
    name = type(model).__name__
    if awq:
        from llmcompressor.modifiers.transform.awq import dynamic_mappings as awq_rules

        listed = {*awq_rules.AWQ_DYNAMIC_MAPPING_REGISTRY, *awq_rules.AWQ_MAPPING_REGISTRY}
        found = awq_rules.get_layer_mappings_from_model(model)
        return name in listed, [[one.smooth_layer, *one.balance_layers] for one in found]
    from llmcompressor.modifiers.transform.smoothquant import dynamic_mappings as rules

    listed = {*rules.SMOOTHQUANT_DYNAMIC_MAPPING_REGISTRY, *rules.MAPPINGS_REGISTRY}
    return name in listed, [
        [*one.balance_layers, one.smooth_layers]
        for one in rules.get_layer_mappings_from_model(model)
    ]


def _count(model: Any, names: list[str]) -> int:  # noqa: ANN401
    from compressed_tensors.utils import match_modules_set

    return sum(1 for _ in match_modules_set(model, names))
