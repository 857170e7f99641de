"""The weight files of a checkpoint and the tensors in their headers; whole, or as far as a sketch has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.runtime.checkpoint_files import bad_json, read_json

if TYPE_CHECKING:
    from quantui.domain.models import TensorInfo
    from quantui.domain.weight_choice import WeightChoice
    from quantui.runtime.checkpoint_files import CheckpointFiles


@dataclass(frozen=True, slots=True)
class CheckpointWeights:
    """``absent`` are shards that an index names and that are not there; ``whole`` False: data is missing."""

    shards: tuple[str, ...]
    tensors: tuple[TensorInfo, ...] | None
    nbytes: int | None
    absent: tuple[str, ...] = ()
    whole: bool = True
    notes: tuple[str, ...] = ()


def checkpoint_weights(files: CheckpointFiles, choice: WeightChoice) -> CheckpointWeights:
    """The weights of a checkpoint that must be all there; of pickled ones only the files are known.

    Raises QuantuiError ``checkpoint.*`` or ``safetensors.*``: shards missing, damaged or of different versions.
    """
    shards, index = _shards(files, choice)
    absent = [name for name in shards if name not in files.sizes]
    if absent:
        raise QuantuiError(
            "checkpoint.missing-shards",
            f"{files.ref}: {len(absent)} of {len(shards)} weight files are missing.",
            f"{choice.index} names {some(absent)}.",
            "Copy or download the missing files.",
            detail=tuple(absent[:50]),
        )
    nbytes = sum(files.sizes[name] for name in shards)
    if choice.kind != "safetensors":
        return CheckpointWeights(shards, None, nbytes)
    tensors, notes = _all_tensors(files, shards, index, without_data=False)
    return CheckpointWeights(shards, tensors, nbytes, notes=notes)


def sketched_weights(files: CheckpointFiles, choice: WeightChoice) -> CheckpointWeights:
    """What is known of the weights of a checkpoint that may lack some, all, or the data behind their headers."""
    if choice.kind == "pickle":
        nbytes = sum(files.sizes[name] for name in choice.names)
        note = "pickled weights are not looked into: sizes are computed from config.json"
        return CheckpointWeights(choice.names, None, nbytes, notes=(note,))
    if choice.kind != "safetensors":
        note = "no weights here: sizes are computed from config.json"
        return CheckpointWeights((), None, None, whole=False, notes=(note,))
    shards, index = _shards(files, choice)
    absent = tuple(name for name in shards if name not in files.sizes)
    if absent:
        present = tuple(name for name in shards if name in files.sizes)
        note = f"{len(absent)} of {len(shards)} weight files are not here: sizes are computed from config.json"
        return CheckpointWeights(present, None, _total_size(files, choice), absent, False, (note,))
    tensors, notes = _all_tensors(files, shards, index, without_data=True)
    described = sum(tensor.nbytes for tensor in tensors)
    nbytes = sum(files.sizes[name] for name in shards)
    if nbytes >= described:
        return CheckpointWeights(shards, tensors, nbytes, notes=notes)
    note = "the weight files hold their headers only"
    return CheckpointWeights(shards, tensors, described, whole=False, notes=(*notes, note))


def some(names: list[str] | tuple[str, ...]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _shards(files: CheckpointFiles, choice: WeightChoice) -> tuple[tuple[str, ...], dict[str, str]]:
    """The files, and for each tensor of the index the file that it is in."""
    if choice.index is None:
        return choice.names, {}
    weight_map = read_json(files, choice.index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise bad_json(files.ref, choice.index, "It has no weight_map.")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise bad_json(files.ref, choice.index, f"{tensor!r} names no file.")
        if "/" in shard or "\\" in shard or "\0" in shard or shard in {"", ".", ".."}:
            raise QuantuiError(
                "checkpoint.outside-folder",
                f"{files.ref}: {choice.index} says that {tensor!r} is in {shard!r}.",
                "An index may only name files in its own folder; this may be an attack.",
                "Do not use this checkpoint.",
            )
        if not shard.endswith(".safetensors"):
            raise bad_json(files.ref, choice.index, f"{shard!r} is not a .safetensors file.")
    return tuple(sorted(set(weight_map.values()))), dict(weight_map)


def _total_size(files: CheckpointFiles, choice: WeightChoice) -> int | None:
    """Bytes of all tensors, by the index's own word."""
    if choice.index is None:
        return None
    metadata = read_json(files, choice.index).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(size, bool) or not isinstance(size, int | float):
        return None
    return int(size) if 0 < size < 2**62 else None


def _all_tensors(
    files: CheckpointFiles,
    shards: tuple[str, ...],
    index: Mapping[str, str],
    *,
    without_data: bool,
) -> tuple[tuple[TensorInfo, ...], tuple[str, ...]]:
    """Every tensor of the shards that the index puts there, and notes."""
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for tensor in files.header(shard, without_data=without_data):
            if index.get(tensor.name, shard) == shard:
                tensors.setdefault(tensor.name, tensor)
    absent = [
        name for name, shard in index.items() if name not in tensors or tensors[name].shard != shard
    ]
    if absent:
        raise QuantuiError(
            "checkpoint.index-mismatch",
            f"{files.ref}: {len(absent)} tensors are not where the index says, as {absent[0]!r}.",
            f"The index puts it in {index[absent[0]]}, whose header does not have it.",
            "Download the index and the shards again: they are of different versions.",
        )
    extra = [name for name in tensors if index and name not in index]
    notes = (f"{len(extra)} tensors are not in the index, {extra[0]!r} first",) if extra else ()
    return tuple(tensors.values()), notes
