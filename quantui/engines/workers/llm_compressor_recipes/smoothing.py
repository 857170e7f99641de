"""Whether llm-compressor's mappings of norms to the layers behind them fit a model, asked before the work."""

from __future__ import annotations

from typing import Any

from quantui_wire import WorkerError, notice

from llm_compressor_recipes import experts


def refuse_unknown(model: Any, method: str) -> None:  # noqa: ANN401 - transformers has no stubs
    """Refuse a model whose layers the mappings of AWQ or SmoothQuant do not find.

    An architecture the library does not list takes those of one it does; that is told, and what comes of
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
            f"llm-compressor does not list {architecture} for {method}: it is taken to be wired like those it does.",
            level="warning",
        )


def for_awq(model: Any) -> Any:  # noqa: ANN401
    """The library's mappings of AWQ for ``model``; for experts of a class it does not list, those of Qwen 3.

    Llama's, which the library (0.14) takes for Mixtral, scale the experts' inputs and not the router's.
    """
    from llmcompressor.modifiers.transform.awq import dynamic_mappings as rules

    listed = {*rules.AWQ_DYNAMIC_MAPPING_REGISTRY, *rules.AWQ_MAPPING_REGISTRY}
    if type(model).__name__ not in listed and experts.has_experts(model):
        return rules.AWQ_MAPPING_REGISTRY["Qwen3MoeForCausalLM"]
    return rules.get_layer_mappings_from_model(model)


def for_smoothquant(model: Any) -> Any:  # noqa: ANN401
    """The library's mappings of SmoothQuant for ``model``; its own where there is a norm before and behind a block.

    What goes into the MLP of Gemma 2 and 3 comes from ``pre_feedforward_layernorm``. The library (0.14,
    modifiers/transform/smoothquant/utils.py, MAPPINGS_REGISTRY) scales ``post_attention_layernorm``, which
    makes another model of it.
    """
    from llmcompressor.modifiers.transform.smoothquant import dynamic_mappings as rules

    if any(place.endswith(".pre_feedforward_layernorm") for place, _ in model.named_modules()):
        return [
            (["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"], "re:.*input_layernorm$"),
            (["re:.*gate_proj$", "re:.*up_proj$"], "re:.*pre_feedforward_layernorm$"),
        ]
    return rules.get_layer_mappings_from_model(model)


def _mappings(model: Any, *, awq: bool) -> tuple[bool, list[list[str]]]:  # noqa: ANN401
    """Whether the model's class is listed, and the names that belong together, mapping by mapping."""
    name = type(model).__name__
    if awq:
        from llmcompressor.modifiers.transform.awq import dynamic_mappings as awq_rules

        listed = {*awq_rules.AWQ_DYNAMIC_MAPPING_REGISTRY, *awq_rules.AWQ_MAPPING_REGISTRY}
        return name in listed, [[one.smooth_layer, *one.balance_layers] for one in for_awq(model)]
    from llmcompressor.modifiers.transform.smoothquant import dynamic_mappings as rules

    listed = {*rules.SMOOTHQUANT_DYNAMIC_MAPPING_REGISTRY, *rules.MAPPINGS_REGISTRY}
    return name in listed, [[*layers, norm] for layers, norm in for_smoothquant(model)]


def _count(model: Any, names: list[str]) -> int:  # noqa: ANN401
    from compressed_tensors.utils import match_modules_set

    return sum(1 for _ in match_modules_set(model, names))
