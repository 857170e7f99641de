"""The Python calls: what a script needs to give a model, or a LoRA adapter, to ``vllm.LLM``.

They build the plan that the command line builds and run it with the same runner; merged models are shared with
it. They print nothing, work in any thread, and import neither torch nor vLLM: heavy work is done by child
processes, of which none is left when a call ends, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quantui.domain.draft import Draft
from quantui.domain.errors import QuantuiError
from quantui.domain.events import RunEvent
from quantui.domain.methods import method as method_named
from quantui.domain.plan import CheckStep, Plan, ServeStep
from quantui.domain.prepared_model import PreparedModel
from quantui.domain.profile import check_together, set_option
from quantui.engines.planning import build_plan
from quantui.engines.vllm_server import engine_arguments, quantization_argument
from quantui.runtime.run_to_end import os_errors, run_to_end

if TYPE_CHECKING:
    from quantui.domain.models import AdapterSpec, FourBitVerdict, ModelSpec
    from quantui.engines.planning import Facts

__all__ = [
    "PreparedModel",
    "get_or_create_merged_model",
    "merge_adapter",
    "prepare_model_for_vllm",
    "was_trained_in_4bit",
]

Reference = str | os.PathLike[str]
"""A folder, or a Hub id (``owner/name``)."""
Device = Literal["auto", "gpu", "cpu"]
EventListener = Callable[[RunEvent], object]

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
) -> PreparedModel:
    """Make a model ready for ``vllm.LLM``: download it, merge its adapter, compute what fits.

    Example::

        from quantui import prepare_model_for_vllm
        from vllm import LLM

        model = prepare_model_for_vllm("me/my-lora")
        llm = LLM(model=model, **model.engine_args)

    A second call finds what the first made and takes a second or two.

    Args:
        model_id: A model, or a LoRA adapter: a folder or a Hub id. The base of an adapter is the one it
            names, in 16 bit where that is a 4-bit copy, and the adapter is merged into it.
        use_quantization: Quantize a 16-bit model while vLLM loads it. A checkpoint that is
            quantized already is served as it is.
        adapter: A LoRA adapter to merge into ``model_id``.
        method: The quantization method; default ``bitsandbytes``. Needs ``use_quantization``.
        revision: Branch, tag or commit of ``model_id`` on the Hub.
        adapter_revision: The same of ``adapter``.
        engine_python: The interpreter that has vLLM and merges; default: this one if it has what is needed,
            else the environment that ``quantui engine install`` made.
        max_model_len: Longest prompt plus answer, tokens; default: computed from the model and free memory.
        merge_device: ``gpu``, ``cpu``, or ``auto``: a GPU with 2 GiB free, where that is faster, else the CPU.
        recreate: Merge again even when the merged model exists.
        trust_remote_code: Run Python code that the model's repository ships. Read it first.
        on_event: Called in this thread with every :class:`~quantui.domain.events.RunEvent`. What it raises
            stops the run and is raised here.

    Raises:
        QuantuiError: With ``code``, ``what``, ``why``, ``fix`` and ``exit_code``: not found or not
            permitted (5), does not fit or is not supported here (3), no engine (4), bad arguments or
            files (2), a merge that failed its proof (6). Nothing is installed unasked.
    """
    if method is not None and not use_quantization:
        raise QuantuiError(
            "api.contradiction",
            f"method={method!r} is given together with use_quantization=False.",
            fix="Leave one of them out.",
        )
    chosen = method_named(method or _DEFAULT_METHOD).name if use_quantization else "none"
    draft = _draft(
        "prepare_model_for_vllm",
        {
            "model.id": _text(model_id),
            "model.revision": revision,
            "model.trust_remote_code": trust_remote_code,
            "adapter.id": None if adapter is None else _text(adapter),
            "adapter.revision": adapter_revision,
            "merge.device": merge_device,
            "merge.recreate": recreate,
            "quantization.method": chosen,
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
    path = _checkpoint(replace(plan, steps=steps), on_event)
    argument = quantization_argument(
        facts.model, method_named(draft.quantization.method), plan.engine
    )
    return PreparedModel(
        path,
        engine_args=engine_arguments(
            draft, plan.engine, plan.estimate, quantization_argument=argument
        ),
        adapter_merged=bool(plan.adapters),
        source=" + ".join([_source(plan.model), *map(_source, plan.adapters)]),
        estimate=plan.estimate,
    )


def get_or_create_merged_model(
    base: Reference,
    adapter: Reference,
    *,
    base_revision: str | None = None,
    adapter_revision: str | None = None,
    device: Device = "auto",
    verify: Literal["fast", "logits"] = "fast",
    recreate: bool = False,
    engine_python: str | None = None,
    on_event: EventListener | None = None,
) -> str:
    """The folder of ``base`` with ``adapter`` merged into it, made and proven if it is not there yet.

    Example::

        from quantui import get_or_create_merged_model

        folder = get_or_create_merged_model("Qwen/Qwen2.5-7B-Instruct", "me/my-lora")

    The folder is named by a hash of all it is made from: another adapter, revision or PEFT makes another one.
    It is quantui's: copy it before changing it. Memory to serve it is not asked for.

    Args:
        base: The 16-bit base model: a folder or a Hub id.
        adapter: The LoRA adapter: a folder or a Hub id.
        base_revision: Branch, tag or commit of ``base`` on the Hub.
        adapter_revision: The same of ``adapter``.
        device: ``gpu``, ``cpu``, or ``auto``: a GPU with 2 GiB free, where that is faster, else the CPU.
        verify: ``fast`` computes sampled rows again in float64; ``logits`` also compares answers with the
            unmerged adapter's, which loads the model once more.
        recreate: Merge again even when the folder exists.
        engine_python: The interpreter that has torch, transformers and peft; default as in
            :func:`prepare_model_for_vllm`.
        on_event: As in :func:`prepare_model_for_vllm`.

    Raises:
        QuantuiError: As :func:`prepare_model_for_vllm`.
    """
    return merge_adapter(
        base,
        adapter,
        base_revision=base_revision,
        adapter_revision=adapter_revision,
        device=device,
        verify=verify,
        recreate=recreate,
        engine_python=engine_python,
        on_event=on_event,
    )


def merge_adapter(
    base: Reference,
    adapter: Reference | Sequence[Reference],
    out: Reference | None = None,
    *,
    weights: Sequence[float] | None = None,
    base_revision: str | None = None,
    adapter_revision: str | None = None,
    device: Device = "auto",
    verify: Literal["fast", "logits"] = "fast",
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    tokenizer_from: Literal["auto", "base", "adapter"] = "auto",
    trust_remote_code: bool = False,
    recreate: bool = False,
    engine_python: str | None = None,
    on_event: EventListener | None = None,
) -> str:
    """Merge one or more adapters into ``base`` and prove the result; gives its folder.

    Example::

        from quantui import merge_adapter

        folder = merge_adapter("./base", "./my-lora", "./merged")
        both = merge_adapter("./base", ["./chat", "./style"], weights=[1.0, 0.5])

    What was proven is in ``merge_proof.json`` in the folder: tensors changed and untouched, rows that were
    computed again in float64, the norm of each tensor's change. This is ``quantui merge``.

    Args:
        base: The 16-bit base model: a folder or a Hub id.
        adapter: The LoRA adapter, or several: folders or Hub ids; of further ones also ``ID@REVISION``.
        out: A folder to make, whole or not at all; it must not exist. Default: a folder of quantui's, named
            by a hash of all it is made from, and found again by the next call. Copy that before changing it.
        weights: How much of each adapter goes in; default: 1 each.
        base_revision: Branch, tag or commit of ``base`` on the Hub.
        adapter_revision: The same of ``adapter``, or of the first one.
        device: ``gpu``, ``cpu``, or ``auto``: a GPU with 2 GiB free, where that is faster, else the CPU.
        verify: ``fast`` computes sampled rows again in float64; ``logits`` also compares answers with the
            unmerged adapter's, which loads the model.
        dtype: Type of the result; default: the base's own.
        tokenizer_from: Whose tokenizer and chat template; default: the adapter's where it has them.
        trust_remote_code: Run Python code that the model's repository ships. Read it first.
        recreate: Merge again even when quantui's folder exists.
        engine_python: The interpreter that has torch, transformers and peft; default as in
            :func:`prepare_model_for_vllm`.
        on_event: As in :func:`prepare_model_for_vllm`.

    Raises:
        QuantuiError: As :func:`prepare_model_for_vllm`.
    """
    adapters = [adapter] if isinstance(adapter, str | os.PathLike) else list(adapter)
    if not adapters:
        raise QuantuiError("api.no-adapter", "No adapter is given.", fix="Give at least one.")
    first, *others = adapters
    draft = _draft(
        "merge_adapter",
        {
            "model.id": _text(base),
            "model.revision": base_revision,
            "model.trust_remote_code": trust_remote_code,
            "adapter.id": _text(first),
            "adapter.revision": adapter_revision,
            "adapter.also": [_text(other) for other in others],
            "adapter.weights": None if weights is None else list(weights),
            "merge.device": device,
            "merge.verify": verify,
            "merge.dtype": dtype,
            "merge.tokenizer_from": tokenizer_from,
            "merge.recreate": recreate,
            "engine.python": engine_python,
        },
    )
    from quantui.runtime.making_places import check_can_make
    from quantui.runtime.resolve import resolve

    folder = None if out is None else Path(out).expanduser().absolute()
    if folder is not None:
        check_can_make(folder)
    with os_errors():
        facts = resolve(draft, serve=False)
    # Forced: what does not fit here in 16 bit may be served elsewhere, or quantized.
    plan = build_plan(
        draft, facts, serve=False, force=True, out=None if folder is None else str(folder)
    )
    return _checkpoint(plan, on_event)


def was_trained_in_4bit(model_id: Reference, revision: str | None = None) -> FourBitVerdict:
    """Was this adapter (or what was merged from one) trained on a 4-bit base? With the evidence.

    Example::

        from quantui import was_trained_in_4bit

        verdict = was_trained_in_4bit("me/my-lora")
        if verdict:
            print([sign.text for sign in verdict.evidence])

    The verdict is true in a condition only when the answer is yes; ``verdict.answer`` is None when nothing
    tells, or strong signs contradict each other. No weights are read, and no engine is needed.

    Args:
        model_id: A folder or a Hub id.
        revision: Branch, tag or commit on the Hub.

    Raises:
        QuantuiError: It was not found or may not be read (exit code 5).
    """
    from quantui.runtime import models

    with os_errors():
        return models.was_trained_in_4bit(_text(model_id), revision)


def _text(reference: Reference) -> str:
    return str(os.fspath(reference))


def _draft(call: str, options: dict[str, object]) -> Draft:
    """The draft with these options, checked as a profile's are; None leaves the default."""
    draft = Draft()
    for path, value in options.items():
        section, _, key = path.partition(".")
        if value is not None:
            draft = set_option(draft, section, key, value, name=f"{call}()")
    check_together(draft, name=f"{call}()")
    return draft


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


def _checkpoint(plan: Plan, on_event: EventListener | None) -> str:
    """Run the plan's steps; gives the folder that holds the result."""
    results = run_to_end(plan, on_event) if plan.steps else {}
    return str(results["merge"]["path"] if "merge" in results else plan.model.path)


def _source(spec: ModelSpec | AdapterSpec) -> str:
    return spec.ref if spec.revision is None else f"{spec.ref}@{spec.revision}"
