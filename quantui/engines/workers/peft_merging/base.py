"""Load the base: whether it fits, and its weights in their own dtype."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError
from streaming_merge.checkpoint import damaged

if TYPE_CHECKING:
    import torch
    from streaming_merge.checkpoint import Checkpoint

    from peft_merging.adapter import Adapter

LIBRARIES = 700_000_000
"""Resident bytes of Python with torch, transformers and PEFT imported (measured 0.6 GB, torch 2.13)."""

ON_CARD = 600_000_000
"""Bytes of a CUDA context and its workspaces, taken as at most this."""


def largest_tensor(base: Checkpoint) -> int:
    """Elements of the largest tensor."""
    return max(tensor.rows * tensor.columns for tensor in base.tensors.values())


def refuse_too_large(
    base: Checkpoint, adapter: Adapter, out: Path, device: str, limit: int | None, max_shard: int
) -> None:
    """Check disk and memory for the merge before anything large is loaded.

    Disk: the base's bytes, twice its largest tensor (an untied head, a wider dtype is counted by the
    caller's ratio) and 64 MB of side files. Memory: the base, four bytes an adapter value, and
    sixteen bytes an element of the largest tensor (its copy, the float32 original, the delta and the
    sum), besides the libraries; on a card a shard is copied to RAM as it is written.

    Raises:
        WorkerError: ``disk.not-enough``, ``merge.not-enough-memory``; both with exit code 3.
    """
    needed = int(base.bytes * 1.02) + 4 * largest_tensor(base) + 64_000_000
    free = shutil.disk_usage(_existing(out.parent)).free
    if free < needed:
        raise WorkerError(
            "disk.not-enough",
            f"The merge needs {needed / 1e9:.2f} GB on the disk of {out.parent}.",
            f"{free / 1e9:.2f} GB are free there.",
            "Free disk space, or put the output on another disk.",
            exit_code=3,
        )
    values = sum(tensor.numel() for tensor in adapter.tensors.values())
    work = base.bytes + 4 * values + 16 * largest_tensor(base)
    if device.startswith("cuda"):
        import torch

        free_there = torch.cuda.mem_get_info(device)[0]
        refuse_short(MERGE, device, work + ON_CARD, free_there)
        work = 2 * min(max_shard, base.bytes)
    refuse_short(MERGE, "RAM", work + LIBRARIES, available_bytes(limit))


MERGE = (
    "The merge through PEFT",
    "merge on another device, or serve the adapter beside its base",
)
"""What needs the memory, and what else can be done."""


def refuse_short(what: tuple[str, str], place: str, needed: int, free: int) -> None:
    """Refuse what needs more bytes of ``place`` than are free there.

    Raises:
        WorkerError: ``merge.not-enough-memory``.
    """
    if free < needed:
        raise WorkerError(
            "merge.not-enough-memory",
            f"{what[0]} needs about {needed / 1e9:.2f} GB of {place}.",
            f"{free / 1e9:.2f} GB are free.",
            f"Close other programs, {what[1]}.",
            exit_code=3,
        )


def available_bytes(limit: int | None) -> int:
    """RAM this process may still take, at most ``limit``."""
    return _available_bytes() if limit is None else min(_available_bytes(), limit)


def _available_bytes() -> int:
    """RAM this process may still take: the machine's, and its control group's (version 2)."""
    available = 1 << 62
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            group /= line[3:].lstrip("/")
    while group.is_relative_to("/sys/fs/cgroup"):
        try:
            limit = (group / "memory.max").read_text(encoding="ascii").strip()
            used = int((group / "memory.current").read_text(encoding="ascii"))
            if limit != "max":
                available = min(available, max(0, int(limit) - used))
        except (OSError, ValueError):
            pass
        group = group.parent
    return available


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def load(base: Path, config: dict[str, Any], device: str, *, trust_remote_code: bool) -> Any:  # noqa: ANN401
    """The base model in its own dtype, in evaluation mode, on ``device``.

    The class is the one its config names: an Auto class picks the text part of some vision models,
    whose tensors then have other names than the adapter's.

    Raises:
        WorkerError: ``merge.unknown-architecture``, ``model.damaged``.
    """
    import transformers
    from safetensors import SafetensorError

    architecture = (config.get("architectures") or ["none"])[0]
    loader = getattr(transformers, architecture, None)
    if trust_remote_code and "auto_map" in config:
        loader = transformers.AutoModelForCausalLM
    if loader is None:
        raise WorkerError(
            "merge.unknown-architecture",
            f"transformers {transformers.__version__} does not know {architecture}.",
            "It is newer than this engine, or its code lies beside its weights.",
            "Update the engine, or allow the model's own code (trust_remote_code) if you trust it.",
            exit_code=2,
        )
    try:
        model, report = loader.from_pretrained(
            base,
            dtype="auto",
            device_map={"": device} if device != "cpu" else None,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise damaged(base, error) from error
    problems = [str(key) for key in (*report["missing_keys"], *report["mismatched_keys"])]
    if problems:
        raise damaged(base, f"{len(problems)} weights are missing or misshapen: {problems[:3]}")
    return model.eval()


def own_dtype(model: Any) -> torch.dtype:  # noqa: ANN401
    """The dtype that most of the model's values have."""
    from collections import Counter

    sizes: Counter[torch.dtype] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += parameter.numel()
    return sizes.most_common(1)[0][0]
