"""What a quantization made and how it was proven, in words: rows of (label, text) for every face."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from quantui.domain.formatting import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MODULES = 4


def quantize_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows for the result of a quantize step, or for the ``made`` of such an artifact.

    What is not known, or is not of its type, is left out: the record of a folder that was made elsewhere is a
    stranger's text.
    """
    rows = (
        ("size", _size(result)),
        ("method", _method(result)),
        ("took", _took(result)),
        ("peak RAM", _peak(result)),
        ("perplexity", _perplexity(result)),
        ("proven in", _proof(result)),
        ("in 16 bit", _left(result)),
        ("calibrated on", _calibration(result)),
    )
    return [(label, text) for label, text in rows if text]


def _size(result: Mapping[str, Any]) -> str:
    size, base = _number(result, "bytes"), _number(result, "base_bytes")
    if size is None:
        return ""
    beside = f", {size / base:.0%} of the 16-bit model's {format_bytes(base)}" if base else ""
    return format_bytes(size) + beside


def _method(result: Mapping[str, Any]) -> str:
    recipe = _table(result, "recipe")
    method, producer = recipe.get("method"), recipe.get("producer")
    if not isinstance(method, str) or not isinstance(producer, str):
        return ""
    words = [f"{method} by {producer}"]
    versions = _table(result, "versions")
    version = next(
        (text for name, text in versions.items() if _plain(name) == _plain(producer)), None
    )
    words[0] += f" {version}" if version else ""
    if (bits := _number(recipe, "bits")) is not None:
        words.append(f"{bits:g} bit")
    if (group := _number(recipe, "group_size")) is not None:
        words.append("a scale a row" if group == -1 else f"groups of {group:g}")
    if isinstance(symmetric := recipe.get("symmetric"), bool):
        words.append("symmetric" if symmetric else "asymmetric")
    if isinstance(writes := recipe.get("writes"), str) and writes != method:
        words.append(f"written as {writes}")
    return ", ".join(words)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _took(result: Mapping[str, Any]) -> str:
    if not (seconds := _number(result, "seconds")):
        return ""
    phases = _table(result, "phases")
    parts = ", ".join(
        f"{name} {format_seconds(spent)}"
        for name in phases
        if (spent := _number(phases, name)) is not None
    )
    on = f", on {result['device']}" if isinstance(result.get("device"), str) else ""
    return f"{format_seconds(seconds)}{on}" + (f" ({parts})" if parts else "")


def _peak(result: Mapping[str, Any]) -> str:
    ram, gpu = _number(result, "peak_rss_bytes"), _number(result, "peak_gpu_bytes")
    if ram is None:
        return ""
    return format_bytes(ram) + (f", {format_bytes(gpu)} of the GPU" if gpu else "")


def _perplexity(result: Mapping[str, Any]) -> str:
    proof, base = _table(result, "proof"), _table(result, "base")
    value, of_base = _number(proof, "perplexity"), _number(base, "perplexity")
    if value is None:
        return ""
    text = f"{value:.4g}"
    if of_base:
        text += f", the 16-bit model's {of_base:.4g}: {value / of_base - 1:+.2%}"
    if tokens := _number(proof, "tokens"):
        text += f" ({tokens:,.0f} held-out tokens)"
    return text


def _proof(result: Mapping[str, Any]) -> str:
    proof = _table(result, "proof")
    if not isinstance(runtime := proof.get("runtime"), str):
        return ""
    text = runtime
    if (agreement := _number(proof, "agreement")) is not None:
        text += f", the same next token as 16 bit for {agreement:.0%} of the prompts' tokens"
    why = result.get("why_not_vllm")
    return f"{text}; not in vLLM: {why}" if isinstance(why, str) and why else text


def _left(result: Mapping[str, Any]) -> str:
    tensors = _table(result, "tensors")
    quantized, left = _number(tensors, "quantized"), _number(tensors, "left")
    if left is None:
        return ""
    text = f"{left:g} tensor{'' if left == 1 else 's'}"
    if (size := _number(tensors, "left_bytes")) is not None:
        text += f", {format_bytes(size)}"
    names = tensors.get("left_modules")
    if isinstance(names, list) and names:
        shown = ", ".join(map(str, names[:_MODULES]))
        text += f": {shown}" + (" ..." if len(names) > _MODULES else "")
    return text if quantized is None else f"{text}; {quantized:g} quantized"


def _calibration(result: Mapping[str, Any]) -> str:
    used = _table(result, "calibration")
    return ", ".join(_of_calibration(used)) if used else ""


def _of_calibration(used: Mapping[str, Any]) -> Iterator[str]:
    samples, tokens = _number(used, "used"), _number(used, "tokens")
    if samples is not None:
        of = f", {tokens:,.0f} tokens" if tokens is not None else ""
        yield f"{samples:g} samples{of} of {used.get('source')}"
    for name, words in (
        ("empty", "empty"),
        ("duplicates", "repeated"),
        ("too_short", "too short"),
    ):
        if count := _number(used, name):
            yield f"{count:g} {words}"


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = values.get(name)
    return table if isinstance(table, dict) else {}


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
