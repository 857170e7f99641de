"""What AutoRound wrote, put right: one folder, and the dtypes of the source."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from quantizing.producing import wrote_nothing
from streaming_merge.checkpoint import read_shard

if TYPE_CHECKING:
    from pathlib import Path

    from streaming_merge.checkpoint import Checkpoint

_TORCH = {"BF16": "bfloat16", "F16": "float16"}


def move_up(folder: Path) -> None:
    """Bring the files of the one folder that AutoRound made below ``folder`` up into it.

    Raises:
        WorkerError: ``quantize.wrote-nothing``.
    """
    below = [path for path in folder.iterdir() if path.is_dir()]
    if (folder / "config.json").is_file():
        return
    holding = [path for path in below if (path / "config.json").is_file()]
    if len(holding) != 1:
        raise wrote_nothing(folder)
    for path in list(holding[0].iterdir()):
        path.rename(folder / path.name)
    holding[0].rmdir()


def restore_dtypes(folder: Path, source: Checkpoint) -> None:
    """Write tensors that are 16-bit in ``source`` in 16 bit again, shard by shard.

    On a CPU without bfloat16 AutoRound computes in float32 and writes the embeddings so, which doubles
    them. A shard is in memory while it is written again.
    """
    import torch
    from safetensors.torch import load_file, save_file

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        wide = {
            tensor.name: getattr(torch, _TORCH[source.tensors[tensor.name].dtype])
            for tensor in read_shard(file).tensors
            if tensor.dtype == "F32"
            and tensor.name in source.tensors
            and source.tensors[tensor.name].dtype in _TORCH
        }
        if wide:
            tensors = load_file(file)
            for name, dtype in wide.items():
                tensors[name] = tensors[name].to(dtype)
            partial = file.with_name(file.name + ".partial")
            save_file(tensors, partial, metadata={"format": "pt"})
            partial.rename(file)
        total += sum(tensor.nbytes for tensor in read_shard(file).tensors)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        told: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        told["metadata"] = {"total_size": total}
        index.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
