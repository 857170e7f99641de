"""Load a quantized checkpoint with the library that knows its format."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError
from streaming_merge.checkpoint import read_config, weight_files

from quantizing import models, producing, proving

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import ModelJob


def load(asked: ModelJob) -> Any:  # noqa: ANN401 - transformers has no stubs
    """The quantized model in evaluation mode, as a model of transformers.

    GPTQ is GPTQModel's where that is installed, and AWQ AutoAWQ's where GPTQModel is not: transformers 5
    loads either with GPTQModel's layers, and GPTQ only with optimum beside it.

    Raises:
        WorkerError: ``prove.does-not-load``, ``engine.lacks-packages``, ``quantize.not-enough-memory``.
    """
    import transformers

    source = asked.model
    config = read_config(source)
    stored = sum(file.stat().st_size for file in weight_files(source)[0])
    models.check_memory(asked, stored, "Loading the quantized model")
    models.quiet(transformers)
    kind = str((config.get("quantization_config") or {}).get("quant_method", ""))
    try:
        if kind == "gptq" and _has("gptqmodel"):
            from gptqmodel import GPTQModel

            made = GPTQModel.load(
                str(source), device=asked.device, trust_remote_code=asked.trust_remote_code
            )
            return made.model.eval()
        if kind == "awq" and _has("awq") and not _has("gptqmodel"):
            return _by_autoawq(asked, config).eval()
        loader = models.model_class(config, trust_remote_code=asked.trust_remote_code)
        model, report = loader.from_pretrained(
            source,
            dtype="auto",
            local_files_only=True,
            trust_remote_code=asked.trust_remote_code,
            output_loading_info=True,
            device_map={"": asked.device},
        )
    except WorkerError:
        raise
    # Every format is another library's, which raises what it likes.
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        if isinstance(error, ImportError):
            raise _lacks(error) from error
        raise proving.does_not_load(source, proving.cause(error)) from error
    refuse_lacking(source, report)
    return model.eval()


def refuse_lacking(source: Path, report: dict[str, Any]) -> None:
    """Raise ``prove.does-not-load`` for what transformers fills with random values, and goes on."""
    lacking = sorted({str(key) for key in (*report["missing_keys"], *report["mismatched_keys"])})
    if lacking:
        raise proving.does_not_load(
            source,
            f"{len(lacking)} of the tensors that its config asks for are missing or misshapen: "
            f"{', '.join(lacking[:3])}.",
        )


def _by_autoawq(asked: ModelJob, config: dict[str, Any]) -> Any:  # noqa: ANN401
    """The model with AutoAWQ's layers, or on the CPU with the weights that they stand for.

    On the CPU AutoAWQ 0.2.9 asks for intel_extension_for_pytorch (awq/models/base.py); what it stores is
    turned back into 16 bit by its own formula instead.
    """
    if asked.on_gpu:
        from awq import AutoAWQForCausalLM

        made = AutoAWQForCausalLM.from_quantized(
            str(asked.model),
            fuse_layers=False,
            trust_remote_code=asked.trust_remote_code,
            device_map={"": asked.device},
        )
        return made.model
    from awq.utils.packing_utils import dequantize_gemm
    from safetensors.torch import load_file
    from transformers import AutoConfig

    stored: dict[str, Any] = {}
    for file in weight_files(asked.model)[0]:
        stored.update(load_file(file))
    how = config["quantization_config"]
    for module in [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]:
        packed = [stored.pop(f"{module}.{part}") for part in ("qweight", "qzeros", "scales")]
        weight = dequantize_gemm(*packed, int(how["bits"]), int(how["group_size"]))
        stored[f"{module}.weight"] = weight.t().contiguous()
    plain = AutoConfig.from_pretrained(
        asked.model, local_files_only=True, trust_remote_code=asked.trust_remote_code
    )
    del plain.quantization_config
    loader = models.model_class(config, trust_remote_code=asked.trust_remote_code)
    model, report = loader.from_pretrained(
        None, config=plain, state_dict=stored, dtype="auto", output_loading_info=True
    )
    refuse_lacking(asked.model, report)
    return model


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _lacks(error: ImportError) -> WorkerError:
    return WorkerError(
        "engine.lacks-packages",
        "This engine cannot load the format that was written.",
        str(error).strip().splitlines()[0][:300] if str(error).strip() else "An import failed.",
        "Install what it asks for into the engine, or prove it with an engine that runs the format.",
    )
