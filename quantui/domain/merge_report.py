"""What a merge did and how it was proven, in words: rows of (label, text) for every face."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from quantui.domain.formatting import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 3


def merge_rows(
    result: Mapping[str, Any], delta_norms: Mapping[str, float]
) -> list[tuple[str, str]]:
    """The rows for the result of a merge step, or for what ``merge_proof.json`` holds.

    ``delta_norms``: tensor -> Frobenius norm of its change. What is not known, or is not of its type, is
    left out: the proof of a folder that was made elsewhere is a stranger's text.
    """
    rows = [("merged", counts)] if (counts := _counts(result)) else []
    rows += _proof_rows(result.get("proof"))
    if largest := _largest(delta_norms):
        rows.append(("largest change", largest))
    if isinstance(result.get("method"), str):
        rows.append(("method", _method(result)))
    if took := _took(result):
        rows.append(("took", took))
    if (peak := _number(result, "peak_rss_bytes")) is not None:
        rows.append(("peak RSS", f"{format_bytes(peak)}, libraries included"))
    return rows


def _took(result: Mapping[str, Any]) -> str:
    seconds, size = _number(result, "seconds"), _number(result, "bytes")
    if not seconds or size is None:
        return ""
    if resumed := _number(result, "resumed_shards"):
        # A rate would count what was there.
        how = f"{resumed} {'file was' if resumed == 1 else 'files were'} there from an earlier try"
    else:
        how = format_rate(size / seconds)
    on = f", on {result['device']}" if result.get("device") else ""
    return f"{format_seconds(seconds)}, {how}{on}"


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _counts(result: Mapping[str, Any]) -> str:
    changed, untouched = _number(result, "tensors_changed"), _number(result, "tensors_untouched")
    if changed is None or untouched is None:
        return ""
    used = _number(result, "adapter_tensors")
    of_adapter = "" if used is None else f", all {used} of the adapter used"
    return f"{changed} tensors changed, {untouched} untouched{of_adapter}"


def _proof_rows(proof: object) -> list[tuple[str, str]]:
    if not isinstance(proof, dict):
        return []
    rows = []
    if sampled := _number(proof, "sampled_rows"):
        text = f"{sampled} rows computed again in float64"
        if (worst := _number(proof, "max_ulp")) is not None:
            text += f": off by at most {worst:.2f} units in the last place"
        rows.append(("proof", text))
        rounded = _number(proof, "correctly_rounded")
        if rounded is not None and proof.get("dtype") != "float32":
            # Down, not to the nearest: 100 % is said only of all. Sums in float32 are not the nearest
            # float32 as often, and need not be.
            rows.append(("", f"{int(rounded * 1e6) / 1e4:g} % of their values correctly rounded"))
    if isinstance(left := proof.get("not_sampled"), list) and left:
        rows.append(("", f"{len(left)} tensors could not be computed again"))
    if isinstance(logits := proof.get("logits"), dict):
        merged, base = _number(logits, "kl_merged"), _number(logits, "kl_base")
        if merged is not None and base is not None:
            text = f"KL to base + adapter {merged:.1e} nats a token; the base's own {base:.1e}"
            rows.append(("answers", text))
    return rows


def _largest(delta_norms: Mapping[str, float]) -> str:
    first = sorted(delta_norms.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
    return ", ".join(f"{name.removesuffix('.weight')} {norm:.3g}" for name, norm in first)


def _method(result: Mapping[str, Any]) -> str:
    if result["method"] != "peft":
        return str(result["method"])
    return "through PEFT" + (f": {result['why_peft']}" if result.get("why_peft") else "")
