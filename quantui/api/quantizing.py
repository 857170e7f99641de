"""Quantized checkpoints: made by the library that makes them best, proven, kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from quantui.api.requests import (
    Device,
    EventListener,
    Reference,
    checkpoint,
    draft_of,
    text,
)
from quantui.runtime.making_places import folder_to_make
from quantui.runtime.run_to_end import os_errors

if TYPE_CHECKING:
    from collections.abc import Sequence


def quantize_model(
    model: Reference,
    out: Reference | None = None,
    *,
    method: str,
    adapter: Reference | None = None,
    producer: str = "auto",
    bits: int | None = None,
    group_size: int | None = None,
    symmetric: bool | None = None,
    mixed_bits: int | None = None,
    format: str | None = None,
    rounding: Literal["gptq", "rtn"] | None = None,
    ignore: Sequence[str] = ("lm_head",),
    calibration: Reference = "builtin",
    calibration_samples: int = 128,
    calibration_length: int = 512,
    calibration_seed: int = 0,
    proof_text: Reference | None = None,
    max_loss: float | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    device: Device = "auto",
    trust_remote_code: bool = False,
    recreate: bool = False,
    force: bool = False,
    engine_python: str | None = None,
    producer_python: str | None = None,
    on_event: EventListener | None = None,
) -> str:
    """Quantize ``model`` and prove the result; gives its folder.

    Example::

        from quantui import quantize_model

        folder = quantize_model("Qwen/Qwen2.5-7B-Instruct", method="gptq", max_loss=0.02)
        folder = quantize_model("./base", "./mine-awq", method="awq", adapter="./my-lora")

    The result is loaded in vLLM (in transformers where vLLM does not run it here), its logits are finite, and its
    perplexity on held-out text is measured beside the 16-bit model's. All that, the recipe, the calibration data,
    versions, time and memory are in ``quantui.json`` in the folder. This is ``quantui quantize``.

    Args:
        model: The 16-bit model: a folder or a Hub id.
        out: A folder to make, whole or not at all; it must not exist. Default: a folder of quantui's, named by a hash
            of all it is made from, and found again by the next call. Copy that before changing it.
        method: What to make: ``awq``, ``gptq``, ``fp8_dynamic``, ``int8_w8a8`` ...; ``quantui methods`` lists them.
        adapter: A LoRA adapter that is merged into ``model`` first.
        producer: The library that makes it, as ``llm-compressor`` or ``autoawq``; default: the method's first.
        bits: Bits a weight; default: the method's.
        group_size: Weights that share a scale, -1 for a whole row; default: the producer's.
        symmetric: Without zero points; default: the producer's.
        mixed_bits: AutoRound: 6 or 8 bit for the layers that need them most, 4 for the others.
        format: AutoRound: what the checkpoint is written as.
        rounding: INT8 W8A8: how weights are rounded.
        ignore: Modules that stay in 16 bit: names, or ``re:`` and a regular expression.
        calibration: ``builtin``, a text or JSON Lines file (chats go through the model's chat template), a folder of
            them, or ``hub:OWNER/NAME[@REVISION][:SPLIT]``. Texts of your own use are best.
        calibration_samples: How many samples; 128 to 512 are usual.
        calibration_length: Tokens of each.
        calibration_seed: Which are drawn.
        proof_text: The text for the perplexity; default: a built-in one that is never calibrated on.
        max_loss: The most that perplexity may grow: 0.02 is 2 %. Default: ten times the base's is refused.
        revision: Branch, tag or commit of ``model`` on the Hub.
        adapter_revision: The same of ``adapter``.
        device: ``gpu``, ``cpu``, or ``auto``: a GPU with room for the model, else the CPU.
        trust_remote_code: Run Python code that the model's repository ships. Read it first.
        recreate: Quantize again even when quantui's folder exists.
        force: Make also what cannot be served here, or does not seem to fit.
        engine_python: The interpreter that has vLLM, in which the 16-bit model is measured and the result proven;
            default as in :func:`prepare_model_for_vllm`.
        producer_python: The interpreter that has the producer; default: this one if it has it, else the environment
            that ``quantui engine install`` made.
        on_event: As in :func:`prepare_model_for_vllm`.

    Raises:
        QuantuiError: As :func:`prepare_model_for_vllm`; a result that is broken, or lost more than ``max_loss``, has
            exit code 6 and is never used.
    """
    draft = draft_of(
        "quantize_model",
        {
            "model.id": text(model),
            "model.revision": revision,
            "model.trust_remote_code": trust_remote_code,
            "adapter.id": None if adapter is None else text(adapter),
            "adapter.revision": adapter_revision,
            "quantization.method": method,
            "quantization.producer": producer,
            "quantization.bits": bits,
            "quantization.group_size": group_size,
            "quantization.symmetric": symmetric,
            "quantization.mixed_bits": mixed_bits,
            "quantization.format": format,
            "quantization.rounding": rounding,
            "quantization.ignore": list(ignore),
            "quantization.calibration": text(calibration),
            "quantization.calibration_samples": calibration_samples,
            "quantization.calibration_length": calibration_length,
            "quantization.calibration_seed": calibration_seed,
            "quantization.proof_text": None if proof_text is None else text(proof_text),
            "quantization.max_loss": max_loss,
            "quantization.device": device,
            "quantization.recreate": recreate,
            "quantization.python": producer_python,
            "engine.python": engine_python,
        },
    )
    from quantui.runtime.resolve import plan_for

    folder = folder_to_make(out, subject="quantize")
    with os_errors():
        plan, _ = plan_for(
            draft, serve=False, make=True, force=force, check_arguments=False, out=folder
        )
    return checkpoint(plan, on_event)


def quantize_to_awq(
    model_path: Reference,
    awq_path: Reference,
    bits: int = 4,
    group_size: int = 128,
    *,
    adapter: Reference | None = None,
    producer: str = "auto",
    symmetric: bool | None = None,
    calibration: Reference = "builtin",
    calibration_samples: int = 128,
    calibration_length: int = 512,
    max_loss: float | None = None,
    device: Device = "auto",
    trust_remote_code: bool = False,
    engine_python: str | None = None,
    producer_python: str | None = None,
    on_event: EventListener | None = None,
) -> str:
    """Make an AWQ checkpoint of ``model_path`` in the new folder ``awq_path``, and prove it; gives that folder.

    Example::

        from quantui import quantize_to_awq

        quantize_to_awq("./merged", "./merged-awq", calibration="./chats.jsonl")

    llm-compressor writes it as compressed-tensors, which vLLM reads as it is.

    Args:
        model_path: The 16-bit model: a folder or a Hub id.
        awq_path: The folder to make, whole or not at all; it must not exist.
        bits: Bits a weight.
        group_size: Weights that share a scale, -1 for a whole row.
        adapter: A LoRA adapter that is merged into the model first.
        producer: ``llm-compressor``, or ``autoawq``, which writes the ``awq`` format of AutoAWQ.
        symmetric: Without zero points; default: the producer's.
        calibration: ``builtin``, a text or JSON Lines file, a folder of them, or ``hub:OWNER/NAME``.
        calibration_samples: How many samples; 128 to 512 are usual.
        calibration_length: Tokens of each.
        max_loss: The most that perplexity may grow: 0.02 is 2 %.
        device: ``gpu``, ``cpu``, or ``auto``: a GPU with room for the model, else the CPU.
        trust_remote_code: Run Python code that the model's repository ships. Read it first.
        engine_python: As in :func:`quantize_model`.
        producer_python: As in :func:`quantize_model`.
        on_event: As in :func:`prepare_model_for_vllm`.

    Raises:
        QuantuiError: As :func:`quantize_model`.
    """
    return quantize_model(
        model_path,
        awq_path,
        method="awq",
        adapter=adapter,
        producer=producer,
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        calibration=calibration,
        calibration_samples=calibration_samples,
        calibration_length=calibration_length,
        max_loss=max_loss,
        device=device,
        trust_remote_code=trust_remote_code,
        engine_python=engine_python,
        producer_python=producer_python,
        on_event=on_event,
    )


def get_or_create_awq_model(
    base: Reference,
    lora: Reference | None = None,
    *,
    bits: int = 4,
    group_size: int = 128,
    producer: str = "auto",
    calibration: Reference = "builtin",
    calibration_samples: int = 128,
    calibration_length: int = 512,
    max_loss: float | None = None,
    base_revision: str | None = None,
    lora_revision: str | None = None,
    device: Device = "auto",
    trust_remote_code: bool = False,
    recreate: bool = False,
    engine_python: str | None = None,
    producer_python: str | None = None,
    on_event: EventListener | None = None,
) -> str:
    """The folder of ``base``, with ``lora`` merged in, as AWQ: made and proven if it is not there yet.

    Example::

        from quantui import get_or_create_awq_model

        folder = get_or_create_awq_model("Qwen/Qwen2.5-7B-Instruct", "me/my-lora")

    The folder is named by a hash of all it is made from: another adapter, revision, recipe, calibration text or
    version of the producer makes another one. It is quantui's: copy it before changing it.

    Args:
        base: The 16-bit base model: a folder or a Hub id.
        lora: A LoRA adapter that is merged into it first: a folder or a Hub id.
        bits: Bits a weight.
        group_size: Weights that share a scale, -1 for a whole row.
        producer: ``llm-compressor``, or ``autoawq``, which writes the ``awq`` format of AutoAWQ.
        calibration: ``builtin``, a text or JSON Lines file, a folder of them, or ``hub:OWNER/NAME``.
        calibration_samples: How many samples; 128 to 512 are usual.
        calibration_length: Tokens of each.
        max_loss: The most that perplexity may grow: 0.02 is 2 %.
        base_revision: Branch, tag or commit of ``base`` on the Hub.
        lora_revision: The same of ``lora``.
        device: ``gpu``, ``cpu``, or ``auto``: a GPU with room for the model, else the CPU.
        trust_remote_code: Run Python code that the model's repository ships. Read it first.
        recreate: Quantize again even when the folder exists.
        engine_python: As in :func:`quantize_model`.
        producer_python: As in :func:`quantize_model`.
        on_event: As in :func:`prepare_model_for_vllm`.

    Raises:
        QuantuiError: As :func:`quantize_model`.
    """
    return quantize_model(
        base,
        method="awq",
        adapter=lora,
        producer=producer,
        bits=bits,
        group_size=group_size,
        calibration=calibration,
        calibration_samples=calibration_samples,
        calibration_length=calibration_length,
        max_loss=max_loss,
        revision=base_revision,
        adapter_revision=lora_revision,
        device=device,
        trust_remote_code=trust_remote_code,
        recreate=recreate,
        engine_python=engine_python,
        producer_python=producer_python,
        on_event=on_event,
    )
