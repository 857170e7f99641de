"""Ask a served model: one prompt, what the server tells of itself, and the perplexity of a text.

Run with quantui's own interpreter: the standard library suffices, and a child can be stopped while it waits.
Job: ``url``, ``model``, ``prompt``, ``max_tokens``, ``text`` (path or null), ``max_perplexity``. The API key comes in
``VLLM_API_KEY``.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import quantui_wire as wire

_TIMEOUT_S = 900.0
_WINDOW_TOKENS = 512


class Endpoint:
    """An OpenAI-compatible server as vLLM extends it."""

    def __init__(self, url: str, model: str) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self._headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            self._headers["Authorization"] = f"Bearer {key}"

    def open(self, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """The open response of a GET, or of a POST with a JSON body."""
        data = None if body is None else json.dumps({"model": self.model, **body}).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        # No proxy: the server is on this machine or one the user named.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            text = error.read(2000).decode(errors="replace")
            raise wire.WorkerError(
                "check.refused",
                f"The server answered {error.code} to {path}.",
                text[:500],
                "The server's log has more.",
                exit_code=6,
            ) from None

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """The parsed answer."""
        with self.open(path, body) as response:
            return json.load(response)


def ask(endpoint: Endpoint, prompt: str, max_tokens: int) -> dict[str, Any]:
    """Complete ``prompt`` greedily, streamed: text, tokens, seconds to the first token and to the last."""
    body = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.monotonic()
    first: float | None = None
    text = ""
    usage: dict[str, Any] = {}
    with endpoint.open("/v1/completions", body) as response:
        for raw in response:
            line = raw.decode().strip()
            if not line.startswith("data:") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data:"))
            if "error" in chunk:
                raise wire.WorkerError(
                    "check.error",
                    "The server failed while it answered.",
                    str(chunk["error"])[:500],
                    "The server's log has more.",
                    exit_code=6,
                )
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", ()):
                if choice["text"] and first is None:
                    first = time.monotonic() - started
                text += choice["text"]
    seconds = time.monotonic() - started
    tokens = int(usage.get("completion_tokens") or 0)
    if not text.strip():
        raise wire.WorkerError(
            "check.empty-answer",
            "The served model answered with nothing.",
            f"It gave {tokens} tokens without visible text for the prompt {prompt[:80]!r}.",
            "Try another check.prompt; if every prompt does this, the checkpoint is broken.",
            exit_code=6,
        )
    return {"text": text, "tokens": tokens, "seconds": seconds, "first_token_seconds": first}


def kv_cache_tokens(endpoint: Endpoint) -> int | None:
    """Tokens in the KV cache, from ``vllm:cache_config_info`` of /metrics."""
    with endpoint.open("/metrics") as response:
        metrics = response.read().decode(errors="replace")
    match = re.search(r"^vllm:cache_config_info\{(.*)\}", metrics, re.MULTILINE)
    if not match:
        return None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
    for size in (labels.get("kv_cache_size_tokens"),):
        if size and size.isdigit():
            return int(size)
    try:
        return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
    except (KeyError, ValueError):
        return None


def perplexity(endpoint: Endpoint, text: str, window: int) -> dict[str, float]:
    """exp of the mean negative log likelihood of ``text``, in windows of ``window`` tokens.

    The first token of a window has no prediction and is left out. The log likelihoods are vLLM's
    ``prompt_logprobs``.
    """
    tokens = endpoint.json("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
    total, counted = 0.0, 0
    for start in range(0, len(tokens), window):
        part = tokens[start : start + window]
        if len(part) < 2:
            continue
        body = {"prompt": part, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        answer = endpoint.json("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        for token, entry in zip(part[1:], answer[1:], strict=True):
            total -= float(entry[str(token)]["logprob"])
            counted += 1
        wire.progress(start + len(part), len(tokens), unit="tokens", message="perplexity")
    if not counted:
        raise wire.WorkerError(
            "check.text-too-short",
            "check.text has fewer than two tokens.",
            fix="Give a longer text.",
            exit_code=2,
        )
    mean = total / counted
    # Past 700 the exponential leaves what a float can hold; a broken model gets there.
    return {"perplexity": math.exp(mean) if mean < 700 else math.inf, "tokens": counted}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise wire.WorkerError(
            "check.bad-text",
            f"check.text, {path}, could not be read.",
            str(error),
            "Give a text file in UTF-8.",
            exit_code=2,
        ) from None


def _judge(measured: dict[str, float], job: dict[str, Any]) -> None:
    """Raise ``check.perplexity`` when it is above the limit, or no number at all."""
    value, limit = measured["perplexity"], job.get("max_perplexity")
    if math.isfinite(value) and (limit is None or value <= limit):
        return
    beyond = f", above check.max_perplexity = {limit}" if limit is not None else ""
    raise wire.WorkerError(
        "check.perplexity",
        f"The perplexity is {value:.2f}{beyond}.",
        f"Measured on {measured['tokens']} tokens of {job['text']}.",
        "Choose a method that keeps more of the model, or look at the merge's proof.",
        exit_code=6,
    )


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run the checks of ``job``."""
    endpoint = Endpoint(job["url"], job["model"])
    models = {entry["id"]: entry for entry in endpoint.json("/v1/models")["data"]}
    if job["model"] not in models:
        raise wire.WorkerError(
            "check.wrong-model",
            f"The server does not serve {job['model']}.",
            f"It serves {', '.join(models)}.",
            "Check serve.served_name.",
            exit_code=6,
        )
    wire.phase("prompt")
    result: dict[str, Any] = {"answer": ask(endpoint, job["prompt"], job["max_tokens"])}
    result["kv_cache_tokens"] = kv_cache_tokens(endpoint)
    if job.get("text"):
        wire.phase("perplexity")
        # An adapter's entry has no limit of its own: its base's holds.
        limits = [entry["max_model_len"] for entry in models.values() if entry.get("max_model_len")]
        window = min([_WINDOW_TOKENS, *(int(limit) - 1 for limit in limits)])
        measured = perplexity(endpoint, _text(job["text"]), window)
        _judge(measured, job)
        result["perplexity"] = measured
    return result


if __name__ == "__main__":
    wire.run(main)
