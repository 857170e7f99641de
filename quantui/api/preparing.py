"""A model made ready for ``vllm.LLM``: downloaded, merged, quantized, and what fits computed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.api.requests import Device, EventListener, Reference, checkpoint, draft_of, text
from quantui.domain.errors import QuantuiError
from quantui.domain.methods import method as method_named
from quantui.domain.plan import CheckStep, ServeStep
from quantui.domain.prepared_model import PreparedModel
from quantui.engines.planning import build_plan
from quantui.engines.vllm_server import engine_arguments, quantization_argument
from quantui.runtime.run_to_end import os_errors

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.engines.planning import Facts

_DEFAULT_METHOD = "bitsandbytes"


def prepare_model_for_vllm(
    model_id: Reference,
    use_quantization: bool = True,
    *,
    adapter: Reference | None = None,
    method: str | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    engine_python: str | None = None,
    max_model_len: int | None = None,
    merge_device: Device = "auto",
    recreate: bool = False,
    trust_remote_code: bool = False,
    on_event: EventListener | None = None,
    calibration: Reference = "builtin",
    max_loss: float | None = None,
    producer_python: str | None = None,
) -> PreparedModel:
    """Make a model ready for ``vllm.LLM``: download it, merge its adapter, quantize it, compute what fits.

    Example::

        from quantui import prepare_model_for_vllm
        from vllm import LLM

        model = prepare_model_for_vllm("me/my-lora")
        llm = LLM(model=model, **model.engine_args)

    A second call finds what the first made and takes a second or two.

    Args:
        model_id: A model, or a LoRA adapter: a folder or a Hub id. The base of an adapter is the one it
            names, in 16 bit where that is a 4-bit copy, and the adapter is merged into it.
        use_quantization: Quantize a 16-bit model, while vLLM loads it or before, as ``method`` is done. A
            checkpoint that is quantized already is served as it is.
        adapter: A LoRA adapter to merge into ``model_id``.
        method: The quantization method; default ``bitsandbytes``, made while loading. A format that only a
            checkpoint can have (``awq``, ``gptq``, ``int8_w8a8`` ...) is made first, proven, kept and found
            again, as :func:`quantize_model` does. Needs ``use_quantization``.
        revision: Branch, tag or commit of ``model_id`` on the Hub.
        adapter_revision: The same of ``adapter``.
        engine_python: The interpreter that has vLLM and merges; default: this one if it has what is needed,
            else the environment that ``quantui engine install`` made.
        max_model_len: Longest prompt plus answer, tokens; default: computed from the model and free memory.
        merge_device: ``gpu``, ``cpu``, or ``auto``: a GPU with 2 GiB free, where that is faster, else the CPU.
        recreate: Merge and quantize again even when the results exist.
        trust_remote_code: Run Python code that the model's repository ships. Read it first.
        on_event: Called in this thread with every :class:`~quantui.domain.events.RunEvent`. What it raises
            stops the run and is raised here.
        calibration: Texts to calibrate a format that is made first on; as in :func:`quantize_model`.
        max_loss: The most that its perplexity may be above the 16-bit model's: 0.02 is 2 %.
        producer_python: The interpreter that has the library that makes it; default: found.

    Raises:
        QuantuiError: With ``code``, ``what``, ``why``, ``fix`` and ``exit_code``: not found or not
            permitted (5), does not fit or is not supported here (3), no engine (4), bad arguments or
            files (2), a merge or a quantized model that failed its proof (6). Nothing is installed unasked.
    """
    if method is not None and not use_quantization:
        raise QuantuiError(
            "api.contradiction",
            f"method={method!r} is given together with use_quantization=False.",
            fix="Leave one of them out.",
        )
    chosen = method_named(method or _DEFAULT_METHOD).name if use_quantization else "none"
    draft = draft_of(
        "prepare_model_for_vllm",
        {
            "model.id": text(model_id),
            "model.revision": revision,
            "model.trust_remote_code": trust_remote_code,
            "adapter.id": None if adapter is None else text(adapter),
            "adapter.revision": adapter_revision,
            "merge.device": merge_device,
            "merge.recreate": recreate,
            "quantization.method": chosen,
            "quantization.calibration": text(calibration),
            "quantization.max_loss": max_loss,
            "quantization.python": producer_python,
            "quantization.recreate": recreate,
            "engine.python": engine_python,
            "serve.max_model_len": max_model_len,
        },
    )
    with os_errors():
        draft, facts = _resolve(draft)
    if facts.model.quantization and method is None:
        draft = draft.with_option("quantization", "method", "none")
    # Planned with its server, so that what cannot be served here is refused; vllm.LLM takes its place.
    plan = build_plan(draft, facts)
    steps = tuple(step for step in plan.steps if not isinstance(step, ServeStep | CheckStep))
    path = checkpoint(replace(plan, steps=steps), on_event)
    argument = ""
    if plan.step("quantize") is None:
        chosen_method = method_named(draft.quantization.method)
        argument = quantization_argument(facts.model, chosen_method, plan.engine)
    return PreparedModel(
        path,
        engine_args=engine_arguments(
            draft, plan.engine, plan.estimate, quantization_argument=argument
        ),
        adapter_merged=bool(plan.adapters),
        source=" + ".join([_source(plan.model), *map(_source, plan.adapters)]),
        estimate=plan.estimate,
    )


def _resolve(draft: Draft) -> tuple[Draft, Facts]:
    """The facts, with the engine that will load the model; a model that is an adapter is taken as one."""
    from quantui.runtime.resolve import resolve

    try:
        return draft, resolve(draft)
    except QuantuiError as error:
        if error.code != "model.is-an-adapter" or draft.adapter.id is not None:
            raise
    for key in ("id", "revision"):
        draft = draft.with_option("adapter", key, getattr(draft.model, key))
    draft = draft.with_option("model", "id", "").with_option("model", "revision", None)
    return draft, resolve(draft)


def _source(spec: ModelSpec | AdapterSpec) -> str:
    return spec.ref if spec.revision is None else f"{spec.ref}@{spec.revision}"
