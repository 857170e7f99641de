"""Whether the group size divides what each layer takes in, asked before anything is loaded."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from quantui_wire import WorkerError
from streaming_merge.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

USUAL = (16, 32, 64, 128, 256, 512, 1024)
"""Group sizes that are worth proposing."""

_EMBEDDING = re.compile(r"(^|\.)(embed_\w+|\w*embeddings?|wte|wpe|tok_embeddings)(\.|$)")


def check_groups(model_folder: Path, group_size: int | None, ignore: Sequence[str] = ()) -> None:
    """Refuse a group size that does not divide the input features of every linear layer.

    None and -1 (a whole row) fit every layer. ``ignore``: modules that stay in 16 bit, by name, by its
    last parts, or as ``re:PATTERN``.

    Raises:
        WorkerError: ``quantize.group-size`` naming a layer, its size and the group sizes that fit all.
    """
    if group_size is None or group_size == -1:
        return
    sizes = dict(input_features(model_folder, ignore))
    odd = {name: size for name, size in sizes.items() if group_size < 1 or size % group_size}
    if not odd:
        return
    common = math.gcd(*sizes.values())
    fitting = [str(size) for size in USUAL if common % size == 0]
    name, size = next(iter(odd.items()))
    raise WorkerError(
        "quantize.group-size",
        f"The group size {group_size} does not divide {name}, which takes in {size} features.",
        f"{len(odd)} of {len(sizes)} linear layers do not divide by it.",
        (f"Choose a group size of {', '.join(fitting)}, " if fitting else "Choose ")
        + "-1 (a whole row), or leave those layers in 16 bit with --ignore.",
        exit_code=2,
    )


def input_features(model_folder: Path, ignore: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Linear layers of a checkpoint and the features each takes in, by the headers.

    GPT-2 stores its weights transposed (Conv1D): there the first axis is what is taken in.
    """
    checkpoint = read_checkpoint(model_folder)
    transposed = checkpoint.config.get("model_type") == "gpt2"
    for name, tensor in sorted(checkpoint.tensors.items()):
        module, _, part = name.rpartition(".")
        if part != "weight" or len(tensor.shape) != 2 or is_embedding(module):
            continue
        if not ignored(module, ignore):
            yield module, tensor.shape[0 if transposed else 1]


def is_embedding(module: str) -> bool:
    """Whether a module of this name is a table of embeddings, which no group size concerns."""
    return _EMBEDDING.search(module) is not None


def ignored(module: str, ignore: Sequence[str]) -> bool:
    """Whether an entry of ``ignore`` names ``module``, as compressed-tensors reads such lists."""
    for entry in ignore:
        if entry.startswith("re:"):
            if re.match(entry.removeprefix("re:"), module):
                return True
        elif module == entry or module.endswith(f".{entry}"):
            return True
    return False
