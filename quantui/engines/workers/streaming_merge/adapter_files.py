"""An adapter's folder by its config and header: which of its tensors acts on which module, and how."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapter_rules import damaged
from quantui_wire import WorkerError

from streaming_merge.checkpoint import MERGEABLE, Shard, Tensor, read_shard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before every module name in an adapter file."""

_PART = re.compile(
    r"^(?P<module>.+?)\.(?P<part>lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB]"
    r"|lora_magnitude_vector(?:\.weight)?|(?:token_adapter\.)?base_layer\.(?:weight|bias)"
    r"|token_adapter\.trainable_tokens_delta)$"
)
_ORIGINAL = ".original_module."
_COPY = ".modules_to_save."


@dataclass(frozen=True)
class AdapterFile:
    """An adapter: its config as stored, its weight in the sum, and its tensors by name."""

    folder: Path
    config: Mapping[str, Any]
    weight: float
    shard: Shard

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name in the file."""
        return {tensor.name: tensor for tensor in self.shard.tensors}


@dataclass(frozen=True)
class Parts:
    """An adapter's tensors by what they act on; values are names in the adapter's file.

    ``modules``: module -> part (``A``, ``B``, ``B.bias``, ``embedding_A``, ``embedding_B``,
    ``magnitude``, ``base.weight``, ``base.bias``, ``tokens``) -> name. ``whole``: the base's tensor that
    is replaced -> name. ``repeated``: name -> the name it must equal, or None for a copy of the base's.
    """

    modules: dict[str, dict[str, str]]
    whole: dict[str, str]
    repeated: dict[str, str | None]
    foreign: tuple[str, ...]


def read_adapter(folder: Path, config: Mapping[str, Any], weight: float) -> AdapterFile:
    """The adapter in ``folder``, whose ``config`` was read before.

    Raises:
        WorkerError: ``adapter.no-weights``, ``adapter.damaged``, ``merge.pickled-adapter``.
    """
    path = folder / WEIGHTS
    if not path.exists():
        if (folder / "adapter_model.bin").exists():
            raise WorkerError(
                "merge.pickled-adapter",
                f"{folder} holds its adapter as a pickle (adapter_model.bin).",
                "A pickle can run any code when it is read.",
                "Load it with PEFT where you trust it, and save it again: safetensors is the default.",
                exit_code=2,
            )
        raise WorkerError(
            "adapter.no-weights",
            f"{folder} has no {WEIGHTS}.",
            "The adapter's weights are missing.",
            "Name the folder that save_pretrained wrote, or download it again.",
            exit_code=2,
        )
    try:
        shard = read_shard(path)
    except WorkerError as error:
        raise damaged(path, error.event["why"]) from error
    return AdapterFile(folder, config, weight, shard)


def parts_of(adapter: AdapterFile) -> Parts:
    """Sort the adapter's tensors by module. ``foreign`` are those that PEFT would not read either."""
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    whole: dict[str, str] = {}
    repeated: dict[str, str | None] = {}
    foreign: list[str] = []
    for key, tensor in adapter.tensors.items():
        if not key.startswith(PREFIX) or tensor.dtype not in MERGEABLE | {"F64"}:
            foreign.append(key)
            continue
        name = key.removeprefix(PREFIX)
        if _ORIGINAL in f".{name}":
            # A saved module's original is the base's own.
            repeated[key] = None
        elif found := _PART.match(name):
            part = found["part"].removeprefix("lora_").removesuffix(".weight")
            part = part.removeprefix("token_adapter.")
            part = {"magnitude_vector": "magnitude", "base_layer": "base.weight",
                    "base_layer.bias": "base.bias", "trainable_tokens_delta": "tokens"}.get(part, part)  # fmt: skip
            modules[found["module"]][part] = key
        elif "lora_" in name or "token_adapter" in name:
            foreign.append(key)
        else:
            plain = name.replace(_COPY, ".")
            if plain in whole:
                # PEFT 0.21 writes a saved, resized embedding twice.
                repeated[key] = whole[plain]
            else:
                whole[plain] = key
    return Parts(dict(modules), whole, repeated, tuple(foreign))
