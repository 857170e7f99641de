"""The proof that a merged folder carries."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PROOF = "merge_proof.json"
_LARGEST_BYTES = 64 * 1024**2


def read_proof(folder: Path) -> dict[str, Any]:
    """What ``merge_proof.json`` in ``folder`` holds; nothing when there is none that can be read."""
    path = folder / PROOF
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
