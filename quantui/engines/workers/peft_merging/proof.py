"""Show that a merge is right, independently of what made it.

Rows of every touched tensor are computed again in float64 from the base's values and the adapter's
file, with the scale that adapter_rules reads, not the one PEFT used; the error is measured in units in the
last place (ulp) that the result's dtype has at the size of the summed terms. Untouched tensors are
compared with the base's files bit by bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import adapter_rules
from quantui_wire import progress
from streaming_merge.adapter_files import PREFIX
from streaming_merge.refusals import proof_failed

from peft_merging.attach import replaced_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from streaming_merge.checkpoint import Checkpoint, Tensor

    from peft_merging.adapter import Adapter

SAMPLED_ROWS = 8
"""Rows of each touched tensor that are computed again."""


@dataclass
class Proof:
    """What was touched and how it was checked; ``sampled`` keeps rows until they are on disk."""

    adapter: Adapter
    delta_norms: dict[str, float] = field(default_factory=dict)
    unproven: list[str] = field(default_factory=list)
    max_ulp: float = 0.0
    rows: int = 0
    values: int = 0
    nearest: int = 0
    sampled: dict[str, tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Tensor name -> (dimension of a row, row numbers, merged rows)."""

    def record(
        self,
        module: str,
        key: str,
        layer: Any,  # noqa: ANN401
        before: torch.Tensor,
        after: torch.Tensor,
        norm: float,
    ) -> None:
        """Note that ``module``'s parameter ``key`` was merged, and check rows of it.

        Raises:
            WorkerError: ``merge.proof-failed``.
        """
        import torch

        name = f"{module}.{key}"
        self.delta_norms[name] = (self.delta_norms.get(name, 0.0) ** 2 + norm**2) ** 0.5
        dimension = _row_dimension(layer, key, before)
        rows = _some_rows(name, before.shape[dimension])
        picked = after.index_select(dimension, rows.to(after.device)).cpu()
        self.sampled[name] = (dimension, rows, picked)
        base = before.index_select(dimension, rows.to(before.device)).cpu().double()
        expected = self._expected(module, key, layer, base, rows, dimension)
        if expected is None:
            self.unproven.append(name)
            return
        value, magnitude = expected
        error = (picked.double() - value).abs()
        ulp = _ulp(value, after.dtype)
        # Half a unit for the one rounding, and float32 arithmetic, whose error is relative to the
        # terms and not to their sum, which may be near zero.
        allowed = 0.5001 * ulp + 16 * torch.finfo(torch.float32).eps * magnitude
        worst = float((error / _ulp(magnitude, after.dtype)).max())
        if not bool((error <= allowed).all()):
            raise proof_failed(
                f"{name} is off by {worst:.1f} units in the last place of its terms."
            )
        self.rows += len(rows)
        self.max_ulp = max(self.max_ulp, worst)
        self.values += picked.numel()
        self.nearest += int((picked == value.to(after.dtype)).sum())

    def _expected(
        self,
        module: str,
        key: str,
        layer: Any,  # noqa: ANN401
        base: torch.Tensor,
        rows: torch.Tensor,
        dimension: int,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Merged rows in float64, and the size of the terms they are a sum of."""
        if self.adapter.why_peft is not None:
            return None

        def stored(part: str) -> torch.Tensor | None:
            tensor = self.adapter.tensors.get(f"{PREFIX}{module}.{part}")
            return None if tensor is None else tensor.double()

        if key == "bias":
            added, a = stored("lora_B.bias"), stored("lora_A.weight")
            if added is None or a is None:
                return None
            delta = added[rows] * adapter_rules.scale(self.adapter.config, module, a.shape[0])
            return base + delta, base.abs() + delta.abs()
        a, b = stored("lora_embedding_A"), stored("lora_embedding_B")
        if a is not None and b is not None:
            left, right = a[:, rows].mT, b.mT
        else:
            a, b = stored("lora_A.weight"), stored("lora_B.weight")
            if a is None or b is None or a.ndim != 2 or b.ndim != 2 or base.ndim != 2:
                return None
            left, right = b[rows], a
        scale = adapter_rules.scale(self.adapter.config, module, a.shape[0])
        plain = base if dimension == 0 else base.mT
        value = plain + scale * (left @ right)
        magnitude = plain.abs() + abs(scale) * (left.abs() @ right.abs())
        direction = stored("lora_magnitude_vector")
        if direction is None:
            direction = stored("lora_magnitude_vector.weight")
        if direction is not None:
            if self.adapter.tensors.get(f"{PREFIX}{module}.lora_embedding_A") is not None:
                return None
            factor = direction.flatten()[rows, None] / value.norm(dim=1, keepdim=True)
            value, magnitude = value * factor, magnitude * factor.abs()
        return (value, magnitude) if dimension == 0 else (value.mT, magnitude.mT)

    def record_replaced(self, parameters: dict[str, torch.nn.Parameter]) -> None:
        """Check the tensors that the adapter brings whole (modules_to_save, biases, embeddings).

        Raises:
            WorkerError: ``merge.proof-failed``.
        """
        import torch

        for name, tensor in replaced_tensors(self.adapter).items():
            parameter = parameters.get(name)
            if parameter is None:
                raise proof_failed(f"{name} of the adapter is nowhere in the merged model.")
            if name not in self.delta_norms:
                if not torch.equal(parameter.data.cpu(), tensor.to(parameter.dtype)):
                    raise proof_failed(f"{name} is not what the adapter holds.")
                self.delta_norms[name] = float(
                    torch.linalg.vector_norm(tensor, dtype=torch.float64)
                )
                rows = _some_rows(name, tensor.shape[0])
                self.sampled[name] = (0, rows, parameter.data.index_select(0, rows).cpu())
                self.rows += len(rows)

    def sampled_facts(self) -> dict[str, Any]:
        """How near the sampled rows are to what float64 gives."""
        return {
            "sampled_rows": self.rows,
            "max_ulp": round(self.max_ulp, 4),
            "correctly_rounded": self.nearest / self.values if self.values else None,
            "not_sampled": self.unproven,
        }

    def compare_files(
        self, source: Checkpoint, result: Checkpoint, renamed: Mapping[str, str | None]
    ) -> dict[str, Any]:
        """Compare what is on disk: sampled rows with the merged ones, all else with the base.

        ``renamed``: stored names of what was merged -> the parameter it is, or None for a part of one.
        Gives counts and lists for the proof.

        Raises:
            WorkerError: ``merge.proof-failed``.
        """
        import torch

        identical, converted, added, reread = 0, [], [], 0
        base, written = source.tensors, result.tensors
        for done, name in enumerate(sorted(written), 1):
            parameter = renamed.get(name, name)
            if parameter in self.sampled:
                dimension, rows, merged = self.sampled[parameter]
                on_disk = _tensor(result.folder, written[name]).index_select(dimension, rows)
                if not torch.equal(on_disk, merged):
                    raise proof_failed(f"{name} was not written as it was merged.")
                reread += 1
            elif name in self.delta_norms or name in renamed:
                pass
            elif name not in base:
                added.append(name)
            else:
                ours, theirs = (
                    _tensor(result.folder, written[name]),
                    _tensor(source.folder, base[name]),
                )
                if ours.dtype == theirs.dtype:
                    if not _same_bits(ours, theirs):
                        raise proof_failed(f"{name} is untouched by the adapter and differs.")
                    identical += 1
                else:
                    converted.append(name)
            progress(done, len(written), unit="tensors", message="comparing with the base")
        return {
            "untouched_identical": identical,
            "converted": converted,
            "added": added,
            "left_out": sorted(set(base) - set(written)),
            "sampled_tensors_on_disk": reread,
        }


def _row_dimension(layer: Any, key: str, tensor: torch.Tensor) -> int:  # noqa: ANN401
    """0, or 1 where a weight is stored transposed (GPT-2's Conv1D), so that rows are outputs."""
    transposed = key == "weight" and tensor.ndim == 2 and getattr(layer, "fan_in_fan_out", False)
    return 1 if transposed and not hasattr(layer.get_base_layer(), "num_embeddings") else 0


def _some_rows(name: str, count: int) -> torch.Tensor:
    import torch

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:SAMPLED_ROWS].sort().values


def _ulp(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance between neighbouring numbers of ``dtype`` at each of ``value``."""
    import torch

    info = torch.finfo(dtype)
    exponent = torch.frexp(value.abs().clamp_min(info.tiny)).exponent - 1
    return torch.ldexp(torch.full_like(value, info.eps), exponent)


def _tensor(folder: Path, stored: Tensor) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(folder / stored.file, "pt") as opened:
        return opened.get_tensor(stored.name)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    if one.shape != other.shape:
        return False
    return bool(torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))
