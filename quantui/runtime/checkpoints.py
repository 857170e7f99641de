"""Read what a model or adapter is from its files: configs and tensor headers, never the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain import checkpoint_facts as facts
from quantui.domain.architecture.quantization_config import quantization_method
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.models import AdapterSpec, FourBitVerdict, ModelSpec, WeightFile
from quantui.domain.weight_choice import (
    WeightChoice,
    choose_adapter_weights,
    choose_model_weights,
    content_files,
    wanted_files,
)
from quantui.runtime.checkpoint_files import read_json, read_optional_json
from quantui.runtime.checkpoint_weights import checkpoint_weights, sketched_weights, some

if TYPE_CHECKING:
    from quantui.runtime.checkpoint_files import CheckpointFiles


_MAX_CARD_BYTES = 2 * 1024 * 1024


def read_model(
    files: CheckpointFiles, *, allow_pickle: bool = False, sketch: bool = False
) -> ModelSpec:
    """The :class:`ModelSpec` of a checkpoint; a ``sketch`` of one may lack weights, or the data behind headers.

    Raises QuantuiError ``checkpoint.*`` or ``safetensors.*``: no config, an adapter in a model's
    place, pickled weights that nobody allowed, shards missing or damaged.
    """
    names = files.sizes
    choice = choose_model_weights(names)
    _refuse_unusable(files, choice, allow_pickle=allow_pickle, sketch=sketch)
    config = read_json(files, "config.json")
    tokenizer_config = read_optional_json(files, "tokenizer_config.json")
    weights = (sketched_weights if sketch else checkpoint_weights)(files, choice)
    shards, tensors = weights.shards, weights.tensors
    license_name = read_license(files)
    wanted = wanted_files(names, shards, adapter=False)
    missing = (*files.missing(wanted), *weights.absent)
    architectures = config.get("architectures")
    return ModelSpec(
        ref=files.ref,
        source="hub-cache" if files.source == "hub" and not missing else files.source,
        path=None if files.source == "hub" and missing else files.path,
        revision=files.revision,
        architectures=tuple(map(str, architectures)) if isinstance(architectures, list) else (),
        model_type=_text(config.get("model_type")),
        dtype=facts.stored_dtype(config, tensors),
        config=config,
        weight_files=tuple(WeightFile(n, names[n], files.sha256(n)) for n in shards),
        weight_bytes=weights.nbytes,
        parameters=facts.parameter_count(tensors, config) if tensors is not None else None,
        tensors=tensors,
        quantization=quantization_method(config),
        context_length=facts.context_length(config, tokenizer_config),
        has_tokenizer=facts.has_tokenizer(names),
        has_chat_template=facts.has_chat_template(names, tokenizer_config),
        custom_code=facts.has_custom_code(config, tokenizer_config),
        license=license_name,
        fingerprint=_fingerprint(files, shards),
        complete=not missing and weights.whole,
        missing_files=missing,
        download_bytes=sum(names.get(name, 0) for name in missing),
        notes=weights.notes,
        gated=files.gated,
    )


def read_adapter(files: CheckpointFiles, *, allow_pickle: bool = False) -> AdapterSpec:
    """The :class:`AdapterSpec` of a PEFT adapter; its 4-bit verdict is left unknown.

    Raises QuantuiError as :func:`read_model`, and ``adapter.is-a-model`` for a full checkpoint.
    """
    names = files.sizes
    if "adapter_config.json" not in names:
        raise _not_an_adapter(files)
    config = read_json(files, "adapter_config.json")
    choice = choose_adapter_weights(names)
    if choice.kind == "none":
        raise QuantuiError(
            "adapter.no-weights",
            f"{files.ref} has an adapter_config.json but no adapter weights.",
            "Neither adapter_model.safetensors nor adapter_model.bin is there.",
            "Copy or save the adapter again: `model.save_pretrained(folder)` writes both.",
        )
    if choice.kind == "pickle" and not allow_pickle:
        raise _pickled(files, choice.names, adapter=True)
    tensors = files.header(choice.names[0]) if choice.kind == "safetensors" else None
    tokenizer_config = read_optional_json(files, "tokenizer_config.json")
    license_name = read_license(files)
    wanted = wanted_files(names, choice.names, adapter=True)
    missing = files.missing(wanted)
    return AdapterSpec(
        ref=files.ref,
        source="hub-cache" if files.source == "hub" and not missing else files.source,
        path=None if files.source == "hub" and missing else files.path,
        revision=files.revision,
        peft_type=(_text(config.get("peft_type")) or "unknown").upper(),
        task_type=_text(config.get("task_type")),
        base_ref=_text(config.get("base_model_name_or_path")),
        base_revision=_text(config.get("revision")),
        rank=_whole(config.get("r")),
        alpha=_number(config.get("lora_alpha")),
        use_rslora=config.get("use_rslora") is True,
        use_dora=config.get("use_dora") is True,
        target_modules=_targets(config.get("target_modules")),
        modules_to_save=_strings(config.get("modules_to_save")),
        config=config,
        tensors=tensors,
        weight_bytes=sum(names[name] for name in choice.names),
        fingerprint=_fingerprint(files, choice.names),
        four_bit=FourBitVerdict(None),
        weight_files=tuple(WeightFile(n, names[n], files.sha256(n)) for n in choice.names),
        complete=not missing,
        missing_files=missing,
        download_bytes=sum(names[name] for name in missing),
        has_tokenizer=facts.has_tokenizer(names),
        has_chat_template=facts.has_chat_template(names, tokenizer_config),
        license=license_name,
    )


def read_license(files: CheckpointFiles) -> str | None:
    """The licence that the model card's front matter names."""
    if not 0 < files.sizes.get("README.md", 0) < _MAX_CARD_BYTES:
        return None
    lines = files.read("README.md").decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip().strip("\"'")
    return None


def _refuse_unusable(
    files: CheckpointFiles, choice: WeightChoice, *, allow_pickle: bool, sketch: bool
) -> None:
    has_config = "config.json" in files.sizes
    if "adapter_config.json" in files.sizes and (choice.kind == "adapter" or not has_config):
        raise QuantuiError(
            "model.is-an-adapter",
            f"{files.ref} is an adapter, not a model.",
            "It has an adapter_config.json and no weights of a whole model.",
            "Give it as the adapter, and the model it was trained on as the model.",
        )
    if choice.kind == "gguf":
        raise QuantuiError(
            "checkpoint.gguf-only",
            f"{files.ref} holds GGUF files only ({some(choice.names)}).",
            "GGUF is llama.cpp's format: it is already quantized, and vLLM's tree dropped it in "
            "0.24.",
            "Give the original safetensors checkpoint that the GGUF was made from.",
        )
    if choice.kind == "none" and not (sketch and has_config):
        raise QuantuiError(
            "checkpoint.no-weights",
            f"{files.ref} holds no model weights.",
            "There is no .safetensors file at its top level.",
            "Check the folder or the name: a checkpoint has config.json and *.safetensors. "
            "(`quantui inspect --sketch` shows what config.json alone tells.)",
        )
    if not has_config:
        raise QuantuiError(
            "checkpoint.no-config",
            f"{files.ref} has weights but no config.json.",
            "Without it neither the architecture nor the sizes are known.",
            "Copy config.json of the original model into it, or give another folder.",
        )
    if choice.kind == "pickle" and not allow_pickle and not sketch:
        raise _pickled(files, choice.names, adapter=False)


def _fingerprint(files: CheckpointFiles, weights: tuple[str, ...]) -> str:
    names = content_files(files.sizes, weights)
    return facts.content_fingerprint(files.digest_kind, [(n, files.digest(n)) for n in names])


def _not_an_adapter(files: CheckpointFiles) -> QuantuiError:
    if "config.json" in files.sizes:
        return QuantuiError(
            "adapter.is-a-model",
            f"{files.ref} is a whole model, not an adapter.",
            "It has a config.json and no adapter_config.json.",
            "Give it as the model; no adapter is needed if it is already merged.",
        )
    return QuantuiError(
        "adapter.no-config",
        f"{files.ref} is not a PEFT adapter: it has no adapter_config.json.",
        "PEFT's save_pretrained writes adapter_config.json beside the weights.",
        "Check the folder: trainers put the adapter in a checkpoint-N or adapter subfolder.",
    )


def _pickled(files: CheckpointFiles, names: tuple[str, ...], *, adapter: bool) -> QuantuiError:
    convert = (
        "load it with PEFT and save it again (save_pretrained writes safetensors)"
        if adapter
        else "load it with transformers and save it again (save_pretrained writes safetensors)"
    )
    return QuantuiError(
        "checkpoint.pickle-only",
        f"{files.ref} has pickled weights only ({some(names)}).",
        "A pickle runs code of its author's when it is loaded.",
        f"Look for a safetensors version, or, if you trust the author, {convert}.",
        ExitCode.BAD_INPUT,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 2**62 else None


def _strings(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _targets(value: Any) -> tuple[str, ...] | str | None:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return value
    return tuple(sorted(map(str, value))) if isinstance(value, list) else None
