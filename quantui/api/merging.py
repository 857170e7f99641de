"""Adapters merged into their base, and whether one was trained in 4 bit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from quantui.api.requests import (
    Device,
    EventListener,
    Reference,
    checkpoint,
    draft_of,
    text,
)
from quantui.domain.errors import QuantuiError
from quantui.engines.planning import build_plan
from quantui.runtime.making_places import folder_to_make
from quantui.runtime.run_to_end import os_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.models import FourBitVerdict


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
    draft = draft_of(
        "merge_adapter",
        {
            "model.id": text(base),
            "model.revision": base_revision,
            "model.trust_remote_code": trust_remote_code,
            "adapter.id": text(first),
            "adapter.revision": adapter_revision,
            "adapter.also": [text(other) for other in others],
            "adapter.weights": None if weights is None else list(weights),
            "merge.device": device,
            "merge.verify": verify,
            "merge.dtype": dtype,
            "merge.tokenizer_from": tokenizer_from,
            "merge.recreate": recreate,
            "engine.python": engine_python,
        },
    )
    from quantui.runtime.resolve import resolve

    folder = folder_to_make(out, subject="merge")
    with os_errors():
        facts = resolve(draft, serve=False)
    # Forced: what does not fit here in 16 bit may be served elsewhere, or quantized.
    plan = build_plan(draft, facts, serve=False, force=True, out=folder)
    return checkpoint(plan, on_event)


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
        return models.was_trained_in_4bit(text(model_id), revision)
