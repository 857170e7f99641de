"""How much memory a served model takes, and the context that fits: pure arithmetic, every figure with its source.

Per rank, `KV = budget - (weights + context + transient peak) - CUDA graphs`; on the CPU the budget is free RAM and the
KV cache is given to vLLM as a number. Linear layers are counted from the safetensors headers; what a method
makes of them is in the catalogue. GQA and MLA caches are counted exactly; sliding windows and state-space layers are
counted as full attention, which is an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.checkpoint_facts import text_config
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.methods import Method
    from quantui.domain.models import ModelSpec, TensorInfo

GIB = 1024**3
DEFAULT_UTILIZATION = 0.92
"""vLLM 0.32's own default of --gpu-memory-utilization."""
CPU_BLOCK_TOKENS = 128
"""KV block of vLLM's CPU backend (vllm/platforms/cpu.py, check_and_update_config, 0.32)."""
CPU_PROCESSES_BYTES = int(1.35 * GIB)
"""API server, EngineCore and Worker of vLLM 0.32 on the CPU, resident minus shared: 1.32 GiB with a model of
4 million parameters and 8 MiB of KV cache, measured 2026-11-21."""
CPU_SHARE = 0.9
"""Part of the free RAM that is planned with: activations, the page cache and other programs need some too."""
GPU_CONTEXT_BYTES = GIB
"""CUDA context, workspaces and communication: an allowance, not a measurement."""
GPU_GRAPHS_BYTES = GIB
"""CUDA graphs, unless eager: an allowance; vLLM reports the real figure after capture."""
SAMPLER_BYTES = 38.9
"""Transient peak of the profile run's dummy sampler, bytes x max_num_seqs x vocabulary (26 public cases)."""
LEAST_CONTEXT = 256
"""Below this many tokens a served model is of no use, and quantui says that it does not fit."""
_EMBEDDINGS = (
    "embed_tokens",
    "wte",
    "wpe",
    "lm_head",
    "embed_out",
    "word_embeddings",
    "embed_in",
    "embed_positions",
)
_KEPT_16BIT = (
    "norm",
    "mlp.gate.weight",
    "router",
    "visual",
    "vision",
    "multi_modal",
    "ln_",
    "rotary",
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU (or of RAM), and what they allow. ``sources`` explains each figure."""

    weight_bytes: int
    kv_bytes_per_token: int
    kv_cache_bytes: int
    transient_bytes: int
    overhead_bytes: int
    max_model_len: int
    utilization: float | None
    sources: Mapping[str, str]

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens that the KV cache holds, over all requests."""
        return self.kv_cache_bytes // max(1, self.kv_bytes_per_token)

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.weight_bytes + self.kv_cache_bytes + self.transient_bytes + self.overhead_bytes


def weight_bytes(
    model: ModelSpec, chosen: Method, *, tensor_parallel: int, dtype: str
) -> int | None:
    """Bytes of weights on one rank, or None when neither headers nor file sizes are known.

    A stored quantization is served as it is, so the files are the weights. Otherwise linear weights take
    ``chosen.bytes_per_linear_weight`` each (an override of ``dtype`` counts for the rest), embeddings are padded
    to 64 rows (vllm/model_executor/layers/vocab_parallel_embedding.py) and tied ones are held once.
    """
    if model.tensors is None or model.quantization:
        return None if model.weight_bytes is None else model.weight_bytes // tensor_parallel
    # A float32 checkpoint is loaded in 16 bit unless told otherwise (vllm/config/model.py, _resolve_auto_dtype).
    width = 4 if dtype == "float32" else 2
    linear_width = chosen.bytes_per_linear_weight if chosen.argument else float(width)
    tied = bool(
        text_config(model.config).get(
            "tie_word_embeddings", model.config.get("tie_word_embeddings")
        )
    )
    names = {tensor.name for tensor in model.tensors}
    has_input = any(".embed_tokens" in name or ".wte" in name for name in names)
    split, replicated = 0.0, 0.0
    for tensor in model.tensors:
        if any(part in tensor.name for part in _EMBEDDINGS):
            if tied and has_input and "lm_head" in tensor.name:
                continue
            rows = tensor.shape[0] if tensor.shape else 1
            split += -(-rows // 64) * 64 * (tensor.elements // max(1, rows)) * width
        elif _is_linear(tensor):
            split += tensor.elements * linear_width
        else:
            replicated += tensor.elements * width
    return int(split / tensor_parallel + replicated)


def _is_linear(tensor: TensorInfo) -> bool:
    return len(tensor.shape) in (2, 3) and not any(part in tensor.name for part in _KEPT_16BIT)


def kv_bytes_per_token(
    config: Mapping[str, Any], *, tensor_parallel: int, element_bytes: int = 2
) -> int | None:
    """KV cache of one token on one rank, bytes; None when the config does not tell.

    GQA: layers x 2 x max(1, kv_heads / TP) x head_dim x bytes. MLA: layers x (kv_lora_rank + qk_rope_head_dim) x
    bytes, not divided by TP. (vllm/v1/kv_cache_interface.py)
    """
    text = text_config(config)

    def number(*keys: str) -> int | None:
        for key in keys:
            value = text.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        return None

    layers = number("num_hidden_layers", "n_layer", "num_layers")
    if layers is None:
        return None
    latent, rope = number("kv_lora_rank"), number("qk_rope_head_dim")
    if latent and rope:
        return layers * (latent + rope) * element_bytes
    heads = number("num_attention_heads", "n_head")
    hidden = number("hidden_size", "n_embd")
    head_dim = number("head_dim") or (hidden // heads if hidden and heads else None)
    kv_heads = number("num_key_value_heads") or (1 if text.get("multi_query") else heads)
    if head_dim is None or kv_heads is None:
        return None
    return layers * 2 * max(1, kv_heads // tensor_parallel) * head_dim * element_bytes


@dataclass(frozen=True)
class Device:
    """What is there to be used: one GPU of the group (the one with least), or the machine's RAM."""

    on_cpu: bool
    total_bytes: int | None
    free_bytes: int | None
    name: str


def estimate_memory(
    model: ModelSpec,
    chosen: Method,
    device: Device,
    *,
    tensor_parallel: int = 1,
    dtype: str = "auto",
    requested_context: int | None = None,
    max_num_seqs: int | None = None,
    utilization: float | None = None,
    kv_cache_bytes: int | None = None,
    eager: bool = False,
    force: bool = False,
) -> MemoryEstimate:
    """The estimate, with the context computed or the requested one checked.

    Raises QuantuiError ``memory.*`` (exit code 3) when it does not fit; with ``force`` the numbers come back as
    they are. Unknown sizes are not guessed: the context then is the requested or the model's own.
    """
    weights = weight_bytes(model, chosen, tensor_parallel=tensor_parallel, dtype=dtype)
    per_token = kv_bytes_per_token(
        model.config, tensor_parallel=tensor_parallel, element_bytes=4 if dtype == "float32" else 2
    )
    limit = model.context_length
    if requested_context and limit and requested_context > limit and not force:
        raise QuantuiError(
            "memory.context-too-long",
            f"serve.max_model_len is {requested_context}, the model was made for {limit} tokens.",
            "vLLM refuses a context above what config.json and its rope scaling give.",
            f"Use at most {limit}, or leave it unset.",
            ExitCode.DOES_NOT_FIT,
        )
    rest = "rest 32 bit" if dtype == "float32" else "rest 16 bit"
    sources = {
        "weights": f"headers of {model.ref}: linear x {chosen.bytes_per_linear_weight} B, {rest}"
        if model.tensors and not model.quantization
        else "size of the weight files",
        "kv_cache": f"{per_token} B a token: layers x 2 x kv heads x head size x bytes (MLA: layers x latent x bytes)",
    }
    vocabulary = int(text_config(model.config).get("vocab_size") or 0)
    if device.on_cpu:
        transient, overhead = 0, CPU_PROCESSES_BYTES
        sources["overhead"] = "three vLLM processes on the CPU, measured with vLLM 0.32"
        available = None if device.free_bytes is None else int(device.free_bytes * CPU_SHARE)
        sources["available"] = f"{CPU_SHARE:.0%} of the free RAM"
        utilization = None
    else:
        sequences = max_num_seqs or (1024 if (device.total_bytes or 0) >= 70 * GIB else 256)
        transient = int(SAMPLER_BYTES * sequences * vocabulary)
        overhead = GPU_CONTEXT_BYTES + (0 if eager else GPU_GRAPHS_BYTES)
        sources["transient"] = "38.9 B x max_num_seqs x vocabulary"
        sources["overhead"] = "allowance for CUDA context and graphs"
        utilization, available = _gpu_budget(device, utilization, force=force)
    if weights is None or per_token is None or available is None:
        context = requested_context or limit or 4096
        return MemoryEstimate(
            weights or 0,
            per_token or 0,
            kv_cache_bytes or 0,
            transient,
            overhead,
            context,
            utilization,
            {**sources, "max_model_len": "not computed: sizes or free memory are unknown"},
        )
    room = available - weights - overhead - transient
    if kv_cache_bytes is not None:
        cache = kv_cache_bytes
    elif device.on_cpu:
        wanted = 4 * (requested_context or limit or 4096)
        cache = min(room, -(-wanted // CPU_BLOCK_TOKENS) * CPU_BLOCK_TOKENS * per_token)
        sources["kv_cache"] += "; four requests of full length, or what RAM allows"
    else:
        cache = room
    granule = CPU_BLOCK_TOKENS if device.on_cpu else 16
    tokens = max(0, cache) // per_token // granule * granule
    context = requested_context or min(limit or tokens, tokens)
    needed = weights + overhead + transient
    if not force and (
        cache > room or context > tokens or context < min(LEAST_CONTEXT, limit or LEAST_CONTEXT)
    ):
        raise _does_not_fit(device, chosen, needed, available, context, tokens, requested_context)
    if tokens < LEAST_CONTEXT:
        # Forced, or a tiny context: what is asked of vLLM is at least possible in itself.
        context = requested_context or min(limit or LEAST_CONTEXT, LEAST_CONTEXT)
        if kv_cache_bytes is None and tokens < context:
            cache = -(-context // granule) * granule * per_token
    return MemoryEstimate(
        weights, per_token, max(0, int(cache)), transient, overhead, context, utilization, sources
    )


def _gpu_budget(
    device: Device, utilization: float | None, *, force: bool
) -> tuple[float | None, int | None]:
    """The part of the card vLLM is given, and its bytes; lowered below what others leave free."""
    if device.total_bytes is None:
        return utilization or DEFAULT_UTILIZATION, None
    wanted = utilization or DEFAULT_UTILIZATION
    if device.free_bytes is not None:
        most = int((device.free_bytes - GIB // 4) / device.total_bytes * 100) / 100
        if most < wanted:
            if utilization is not None and not force:
                raise QuantuiError(
                    "memory.not-free",
                    f"serve.gpu_memory_utilization is {wanted}, but only {most:.2f} of "
                    f"{device.name} is free.",
                    "Other processes hold memory on the card; vLLM refuses to start then.",
                    "Lower it, or stop them: `quantui doctor` names them.",
                    ExitCode.DOES_NOT_FIT,
                )
            wanted = wanted if utilization is not None else max(0.05, most)
    return wanted, int(wanted * device.total_bytes)


def _does_not_fit(
    device: Device,
    chosen: Method,
    needed: int,
    available: int,
    context: int,
    tokens: int,
    requested: int | None,
) -> QuantuiError:
    place = "RAM" if device.on_cpu else device.name
    if requested and tokens >= LEAST_CONTEXT:
        return QuantuiError(
            "memory.context-does-not-fit",
            f"A context of {context} tokens does not fit into {place}.",
            f"Weights and overhead take {needed / GIB:.2f} of {available / GIB:.2f} GiB; "
            f"the rest holds {tokens} tokens.",
            f"Set serve.max_model_len to {tokens} or less, or choose a method with smaller weights.",
            ExitCode.DOES_NOT_FIT,
        )
    return QuantuiError(
        "memory.does-not-fit",
        f"The model does not fit into {place} ({chosen.title}).",
        f"Weights and overhead take {needed / GIB:.2f} GiB, {available / GIB:.2f} GiB can be used.",
        "Choose a method with smaller weights, more GPUs (serve.tensor_parallel), or free memory. "
        "--force tries anyway.",
        ExitCode.DOES_NOT_FIT,
    )
