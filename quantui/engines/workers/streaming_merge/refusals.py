"""The errors of adapters that do not fit their base, or fit it only in part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui_wire import WorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_USE_ITS_BASE = (
    "Use the base this adapter was trained on (base_model_name_or_path in adapter_config.json)"
)


def no_key_matched(folder: Path, count: int, detail: Sequence[str] = ()) -> WorkerError:
    """None of the adapter's ``count`` tensors has a place in the base."""
    return WorkerError(
        "merge.no-key-matched",
        f"Nothing of the adapter in {folder} belongs to this base.",
        f"None of its {count} tensors names a layer that the base has.",
        f"{_USE_ITS_BASE}.",
        exit_code=2,
        detail=tuple(detail[:3]),
    )


def keys_unmatched(folder: Path, extra: Sequence[str], absent: Sequence[str]) -> WorkerError:
    """``extra`` tensors have no place in the base; ``absent`` ones are asked for and not there."""
    return WorkerError(
        "merge.keys-unmatched",
        f"The adapter in {folder} and this base do not fit together wholly.",
        f"{len(extra)} tensors of the adapter have no place in the base, and {len(absent)} "
        "places that adapter_config.json asks for have no tensor.",
        "Use the base this adapter was trained on, and the complete adapter.",
        exit_code=2,
        detail=(
            *(f"no place: {key}" for key in extra[:3]),
            *(f"no tensor: {key}" for key in absent[:3]),
        ),
    )


def shape_mismatch(folder: Path, lines: Sequence[str]) -> WorkerError:
    """Shapes that the base and adapter_config.json do not allow; a line for each."""
    return WorkerError(
        "merge.shape-mismatch",
        f"{len(lines)} tensors of the adapter in {folder} have other shapes than the base and "
        "adapter_config.json ask for.",
        lines[0],
        f"{_USE_ITS_BASE}, and its unedited config.",
        exit_code=2,
        detail=tuple(lines[1:5]),
    )


def not_finite(folder: Path, tensors: Sequence[str]) -> WorkerError:
    """An adapter whose ``tensors`` are broken."""
    return WorkerError(
        "merge.not-finite",
        f"{len(tensors)} tensors of the adapter in {folder} hold NaN or infinity.",
        "Its training diverged, or the file is damaged.",
        "Use an earlier checkpoint of the adapter.",
        exit_code=2,
        detail=tuple(tensors[:5]),
    )


def merged_not_finite(name: str, dtype: object) -> WorkerError:
    """A tensor whose merged values ``dtype`` (torch's, its name, or safetensors' ``F16``) cannot hold."""
    said = str(dtype).removeprefix("torch.")
    said = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(said, said)
    return WorkerError(
        "merge.not-finite",
        f"Merging {name} gives NaN or infinity in {said}.",
        "The adapter's values are too large, or its scale is, for this dtype.",
        "Choose bfloat16 or float32 for the result, or use an earlier checkpoint of the adapter.",
        exit_code=2,
    )


def no_effect(folder: Path) -> WorkerError:
    """An adapter that changes nothing."""
    return WorkerError(
        "merge.no-effect",
        f"The adapter in {folder} changes nothing.",
        "Every change it makes is zero: it was saved before training, or emptied by another tool.",
        "Use the trained checkpoint of the adapter, or serve the base as it is.",
        exit_code=2,
    )


def proof_failed(why: str) -> WorkerError:
    """A merge that was made and must not be trusted."""
    return WorkerError(
        "merge.proof-failed",
        "The merged model is not base + adapter; it was removed.",
        why,
        "Serve the adapter beside its base instead, and report this with the run's log.",
        exit_code=6,
    )


def in_progress(out: Path) -> WorkerError:
    """Another process is at the same place."""
    return WorkerError(
        "merge.in-progress",
        f"Another process is writing {out}.",
        "Its unfinished folder is locked.",
        "Wait for it, or stop it.",
        exit_code=2,
    )


def conflict(what: str, why: str) -> WorkerError:
    """Several adapters that cannot be merged in one pass."""
    return WorkerError(
        "merge.adapters-conflict",
        f"These adapters cannot be merged together: {what}.",
        why,
        "Merge one of them first, and the other into the result.",
        exit_code=2,
    )
