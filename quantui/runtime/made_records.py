"""What a merged or a quantized folder says of how it was made and proven."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from quantui.runtime.artifacts import RECORD

if TYPE_CHECKING:
    from pathlib import Path

PROOF = "merge_proof.json"
_LARGEST_BYTES = 64 * 1024**2


def read_proof(folder: Path) -> dict[str, Any]:
    """What ``merge_proof.json`` in ``folder`` holds; nothing when there is none that can be read."""
    return _read(folder / PROOF)


def read_made(folder: Path) -> dict[str, Any]:
    """What a producer told of the quantized model in ``folder``, by its ``quantui.json``; nothing where it has none."""
    made = _read(folder / RECORD).get("made")
    return made if isinstance(made, dict) and "recipe" in made else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return {}
        proof = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return proof if isinstance(proof, dict) else {}


def delta_norms(proof: dict[str, Any]) -> dict[str, float]:
    """Tensor -> norm of its change, as far as they are numbers: a stranger may have written the file."""
    norms = proof.get("delta_norms")
    if not isinstance(norms, dict):
        return {}
    return {
        str(name): float(norm)
        for name, norm in norms.items()
        if isinstance(norm, int | float) and math.isfinite(norm)
    }
