"""Changes to how vLLM serves that may help a failed run, each with its numbers; which helps what is in fixes.py."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quantui.domain.fix_case import option

_LEAST_CONTEXT = 512
_MAX_SEQS = 256
"""What vLLM computes at once when it is not told, on the devices that most people have."""
_HIGHEST_SHARE = 0.97

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.fix_case import Case, Fix


def shorter_context(case: Case) -> Iterator[Fix]:
    """To what vLLM itself says that fits, else to what fits for sure by the estimate, else to the half."""
    now = case.context
    if now is None or now <= _LEAST_CONTEXT:
        return
    told = re.search(r"estimated maximum model length is (\d+)", case.text)
    fit = case.plan.estimate.fit if case.plan else None
    safe = fit.safe_context if fit else None
    if told and 0 < int(told[1]) < now:
        lower, why = int(told[1]), "what vLLM says fits"
    elif safe is not None and _LEAST_CONTEXT <= safe < now:
        lower, why = safe, "what fits for sure by the estimate"
    else:
        lower, why = max(_LEAST_CONTEXT, now // 2), "the half"
    lower = max(16, lower // 16 * 16)
    yield option(
        "serve",
        "max_model_len",
        lower,
        f"lower serve.max_model_len to {lower}, {why} (it was {now})",
    )


def context_of_model(case: Case) -> Iterator[Fix]:
    """To the longest that the model was made for."""
    told = re.search(r"max_position_embeddings=(\d+)|made for (\d+) tokens", case.text)
    limit = (
        int(told[1] or told[2]) if told else case.plan.model.context_length if case.plan else None
    )
    now = case.draft.serve.max_model_len
    if limit and (now is None or limit < now):
        yield option(
            "serve",
            "max_model_len",
            limit,
            f"lower serve.max_model_len to {limit}, what the model was made for",
        )
    elif now is not None:
        yield option("serve", "max_model_len", None, "let quantui compute serve.max_model_len")


def fewer_requests(case: Case) -> Iterator[Fix]:
    """Half the requests at once: less memory for activations and CUDA graphs."""
    fit = case.plan.estimate.fit if case.plan else None
    now = case.draft.serve.max_num_seqs or (fit.max_num_seqs if fit else None) or _MAX_SEQS
    if now > 1:
        words = f"lower serve.max_num_seqs to {now // 2}: fewer requests at once (it was {now})"
        yield option("serve", "max_num_seqs", now // 2, words)


def _share(case: Case) -> float:
    estimated = case.plan.estimate.utilization if case.plan else None
    return case.draft.serve.gpu_memory_utilization or estimated or 0.92


def smaller_share(case: Case) -> Iterator[Fix]:
    """To the share of the card that is free, where vLLM told it, else by a tenth."""
    if case.on_cpu:
        return
    now = _share(case)
    told = re.search(r"\(([\d.]+)/([\d.]+) GiB\) on startup is less", case.text)
    lower = int(float(told[1]) / float(told[2]) * 100) / 100 if told else now - 0.1
    lower = round(min(lower, now - 0.01), 2)
    if lower >= 0.1:
        words = f"lower serve.gpu_memory_utilization to {lower}"
        why = ", what is free" if told else ""
        yield option("serve", "gpu_memory_utilization", lower, f"{words}{why} (it was {now:.2f})")


def larger_share(case: Case) -> Iterator[Fix]:
    """More of the card for the KV cache."""
    now = _share(case)
    if not case.on_cpu and now < _HIGHEST_SHARE - 0.01:
        higher = round(min(_HIGHEST_SHARE, now + 0.05), 2)
        words = f"raise serve.gpu_memory_utilization to {higher} (it was {now:.2f})"
        yield option("serve", "gpu_memory_utilization", higher, words)


def computed_cache(case: Case) -> Iterator[Fix]:
    """A cache whose size was set by hand is computed instead."""
    size = case.draft.serve.kv_cache_gib
    if size is not None:
        words = f"let quantui compute the KV cache's size (serve.kv_cache_gib was {size:g})"
        yield option("serve", "kv_cache_gib", None, words)


def no_graphs(case: Case) -> Iterator[Fix]:
    """Without CUDA graphs, which hold memory of the card."""
    if not case.on_cpu and not case.draft.serve.enforce_eager:
        words = (
            "skip compilation and CUDA graphs: less memory, slower answers (serve.enforce_eager)"
        )
        yield option("serve", "enforce_eager", True, words)


def eager(case: Case) -> Iterator[Fix]:
    """Without compilation."""
    if not case.draft.serve.enforce_eager:
        words = "skip compilation: starts sooner, slower answers (serve.enforce_eager)"
        yield option("serve", "enforce_eager", True, words)


def more_time(case: Case) -> Iterator[Fix]:
    """Twice the time to start."""
    now = case.draft.serve.startup_timeout_s
    words = f"wait {2 * now} s for the server (serve.startup_timeout_s was {now})"
    yield option("serve", "startup_timeout_s", 2 * now, words)


def fewer_gpus(case: Case) -> Iterator[Fix]:
    """The largest number of GPUs below that divides the attention heads."""
    now = case.draft.serve.tensor_parallel
    told = re.search(r"attention heads \((\d+)\)", case.text)
    config = case.plan.model.config if case.plan else {}
    nested = config.get("text_config")
    inner = nested if isinstance(nested, dict) else config
    heads = int(told[1]) if told else inner.get("num_attention_heads")
    for fewer in range(now - 1, 0, -1):
        if fewer == 1 or (isinstance(heads, int) and heads % fewer == 0):
            words = f"split over {fewer} GPU{'s' if fewer > 1 else ''} (serve.tensor_parallel was {now})"
            yield option("serve", "tensor_parallel", fewer, words)
            return


def free_port(case: Case) -> Iterator[Fix]:
    """Any port that is free."""
    now = case.draft.serve.port
    if now != 0:
        yield option("serve", "port", 0, f"take a free port (serve.port was {now})")


def own_address(case: Case) -> Iterator[Fix]:
    """This machine's loopback address."""
    host = case.draft.serve.host
    if host != "127.0.0.1":
        yield option("serve", "host", "127.0.0.1", f"serve on 127.0.0.1 (serve.host was {host})")


def without_key(case: Case) -> Iterator[Fix]:
    """No API key: only for an address that others cannot reach."""
    if case.draft.serve.api_key_env and case.draft.serve.host in {"127.0.0.1", "::1", "localhost"}:
        words = "serve without an API key: only programs of this machine reach 127.0.0.1"
        yield option("serve", "api_key_env", None, words)


def without_arguments(case: Case) -> Iterator[Fix]:
    """Leave out the argument that vLLM refused, or all that were added by hand."""
    extra = case.draft.serve.extra_args
    if not extra:
        return
    named = {name: f"--{name.replace('_', '-')}" for name in extra}
    refused = [name for name, flag in named.items() if flag in case.text]
    for name in refused:
        rest = {key: value for key, value in extra.items() if key != name}
        yield option("serve", "extra_args", rest, f"leave {named[name]} out of serve.extra_args")
    if len(extra) > 1 or not refused:
        words = f"leave out everything in serve.extra_args ({', '.join(named.values())})"
        yield option("serve", "extra_args", {}, words)


def remote_code(case: Case) -> Iterator[Fix]:
    """The person's word that the code was read."""
    if not case.draft.model.trust_remote_code:
        words = "run the code of the model's repository (model.trust_remote_code): only after reading it"
        yield option("model", "trust_remote_code", True, words)


def own_engine(case: Case) -> Iterator[Fix]:
    """An engine that quantui makes, instead of an interpreter that was named."""
    if case.draft.engine.python:
        words = "use an engine that quantui makes (engine.python is unset)"
        yield option("engine", "python", None, words)
    if case.draft.quantization.python:
        words = "use a producer that quantui installs (quantization.python is unset)"
        yield option("quantization", "python", None, words)
