"""Worker: prove with vLLM that a quantized checkpoint loads, answers and predicts text.

Job: ``model`` (folder), and optionally ``reference`` (file of ``measure_model.py``), ``text``, ``tokens``,
``max_model_len``, ``device`` and ``trust_remote_code``. Facts: vLLM 0.32.

vLLM runs in one process, a child of this one, which ends with it: its own exception is then the root cause,
and not what one of its processes says of another.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import quantizing  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import quantui_wire as wire
from quantizing import producing, proving

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {
    # As a server's; and the engine in this process.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}

TRACK = "enable_weights_track"
"""The option of vLLM's loader that lets it refuse what lacks tensors."""

SMALLEST_CACHE = 128 << 20
"""Bytes of KV cache for models whose config does not tell what a token takes."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load and measure."""
    producing.refuse_missing(("vllm", "torch", "transformers", "safetensors"))
    if not job.get(proving.INSIDE):
        return proving.in_a_child(job, "prove_in_vllm.py")
    os.environ.update(ENVIRONMENT)
    with producing.foreseeable(job.get("device") or "cpu"):
        return prove(job)


def prove(job: dict[str, Any]) -> dict[str, Any]:
    """The result for ``job``.

    Raises:
        WorkerError: ``prove.does-not-load``, ``prove.not-finite``, ``quantize.not-enough-memory``.
    """
    from quantizing import reference
    from quantizing.held_out import Perplexity

    asked = proving.question(job)
    wire.phase("load")
    began = time.monotonic()
    engine = load(job, asked)
    loaded = time.monotonic()
    wire.phase("measure")
    measured, total, done = Perplexity(), sum(map(len, asked.windows)), 0
    for window in asked.windows:
        said = ask(job, engine, window, best=False)
        pairs = zip(window[1:], said, strict=True)
        measured.add(float(found[token].logprob) for token, found in pairs)
        done += len(window)
        wire.progress(done, total, unit="tokens", message="perplexity")
    proving.refuse_broken(job, measured)
    best = [
        [max(found, key=lambda token: found[token].logprob) for found in ask(job, engine, ids)]
        for ids in asked.prompts
    ]
    import vllm

    return {
        "runtime": f"vLLM {vllm.__version__.split('+')[0]} ({'CPU' if on_cpu() else 'GPU'})",
        "perplexity": measured.value,
        "tokens": measured.tokens,
        "finite": True,
        "agreement": reference.agreement(asked.reference, best) if asked.reference else None,
        "seconds": round(time.monotonic() - began, 2),
        "load_seconds": round(loaded - began, 2),
        "peak_rss_bytes": producing.peak_rss_bytes(),
        "weight_bytes": weight_bytes(engine),
    }


def load(job: dict[str, Any], asked: proving.Question) -> Any:  # noqa: ANN401 - vLLM has no stubs
    """vLLM's engine with the checkpoint: a small cache, one sequence at a time, nothing compiled.

    Raises:
        WorkerError: ``prove.does-not-load``.
    """
    from quantizing.progress import follow_tqdm

    longest = 1 + max(len(ids) for ids in (*asked.windows, *asked.prompts))
    length = max(longest, int(job.get("max_model_len") or 0))
    options: dict[str, Any] = {}
    try:
        with follow_tqdm("shards"):
            from vllm import LLM

            if not on_cpu():
                options["gpu_memory_utilization"] = utilization(asked.model.device)
            if tracks_weights(asked.model.model):
                options["model_loader_extra_config"] = {TRACK: True}
            return LLM(
                model=str(asked.model.model),
                max_model_len=length,
                max_num_seqs=1,
                kv_cache_memory_bytes=cache_bytes(asked.model.model, length),
                enforce_eager=True,
                enable_prefix_caching=False,
                trust_remote_code=asked.model.trust_remote_code,
                **options,
            )
    # Layers, kernels, configs of all formats: what they raise is theirs.
    except (Exception, SystemExit) as error:
        if producing.is_about_resources(error):
            raise
        raise proving.does_not_load(job["model"], proving.cause(error)) from error


def tracks_weights(model: Path) -> bool:
    """Whether this vLLM can be told to refuse a checkpoint of this format that lacks tensors.

    Of quantized ones it asks that only when told to, and computes with whatever is in memory otherwise
    (vllm/model_executor/model_loader/default_loader.py). Seen to accept whole checkpoints of
    compressed-tensors, GPTQ, AWQ, AutoRound and bitsandbytes; torchao's are not tried.
    """
    import inspect

    from streaming_merge.checkpoint import read_config
    from vllm.model_executor.model_loader import default_loader

    quantization = read_config(model).get("quantization_config") or {}
    known = TRACK in inspect.getsource(default_loader)
    return known and quantization.get("quant_method") not in (None, "torchao")


def on_cpu() -> bool:
    """Whether this vLLM computes on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def utilization(device: str) -> float:
    """The part of the card that vLLM is to find free (it refuses to start otherwise): nearly all that is."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return min(0.92, 0.97 * int(free) / int(total))


def cache_bytes(model: Path, tokens: int) -> int:
    """A KV cache for two sequences of ``tokens``: key and value, four bytes a value, in every layer."""
    from streaming_merge.checkpoint import read_config

    config = read_config(model)
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    try:
        heads = int(text.get("num_key_value_heads") or text["num_attention_heads"])
        size = int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])
        a_token = 2 * 4 * int(text["num_hidden_layers"]) * heads * size
    except (KeyError, TypeError, ValueError):
        return 8 * SMALLEST_CACHE
    return max(SMALLEST_CACHE, 2 * tokens * a_token)


def ask(job: dict[str, Any], engine: Any, ids: list[int], *, best: bool = True) -> list[Any]:  # noqa: ANN401
    """For each token of ``ids`` but the first: token -> log-probability, of it and (``best``) the likeliest."""
    from vllm import SamplingParams

    how = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=int(best), detokenize=False)
    try:
        (answer,) = engine.generate([{"prompt_token_ids": ids}], how, use_tqdm=False)
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise proving.does_not_load(job["model"], proving.cause(error)) from error
    return list(answer.prompt_logprobs[1:])


def weight_bytes(engine: Any) -> int | None:  # noqa: ANN401
    """Bytes of the weights as vLLM holds them; None where it does not let them be counted.

    On the CPU it packs them anew, out of torch's sight.
    """
    if on_cpu():
        return None
    try:
        (found,) = engine.apply_model(_count)
    # It counts for information alone.
    except Exception:  # noqa: BLE001
        return None
    return int(found)


def _count(model: Any) -> int:  # noqa: ANN401
    tensors = [*model.parameters(), *model.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    wire.run(main)
