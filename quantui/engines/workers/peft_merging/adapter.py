"""Read an adapter folder, and refuse what cannot be merged before anything large is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import adapter_rules
from quantui_wire import notice
from streaming_merge.adapter_files import read_adapter
from streaming_merge.refusals import not_finite

if TYPE_CHECKING:
    from pathlib import Path

    import torch


@dataclass(frozen=True)
class Adapter:
    """An adapter folder: its config as stored, and its tensors in CPU memory.

    ``why_peft``: why no formula but PEFT's own tells what it changes; None where LoRA's formulas do.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    why_peft: str | None

    @property
    def is_lora(self) -> bool:
        """Whether its tensors are named as LoRA's are."""
        return str(self.config["peft_type"]) == "LORA"


def read(folder: Path) -> Adapter:
    """The adapter in ``folder``, checked as far as it can be without its base.

    Raises:
        WorkerError: ``adapter.no-config``, ``adapter.damaged``, ``merge.pickled-adapter``,
            ``merge.not-mergeable``, ``merge.unconverted-init``, ``merge.unknown-setting``,
            ``merge.not-finite``.
    """
    config = adapter_rules.read_config(folder)
    why_peft = adapter_rules.route(config, folder).through_peft
    adapter_rules.refuse_unknown(config, _known_to_peft(config["peft_type"]))
    tensors = _tensors(folder, config)
    _refuse_not_finite(tensors, folder)
    if config.get("bias", "none") != "none" and not any(n.endswith(".bias") for n in tensors):
        notice(
            f"The adapter says it trained biases (bias={config['bias']!r}) and holds none.",
            level="warning",
        )
    return Adapter(folder, config, tensors, why_peft)


def _known_to_peft(kind: str) -> set[str]:
    """The fields that the installed PEFT has for adapters of this kind."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise adapter_rules.unknown_setting(f"peft_type {kind!r}")
    return {field.name for field in fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}


def _tensors(folder: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(read_adapter(folder, config, 1.0).shard.path))


def _refuse_not_finite(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    import torch

    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise not_finite(folder, broken)
