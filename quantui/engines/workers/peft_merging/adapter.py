"""Read an adapter folder, and refuse what cannot be merged before anything large is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import adapter_rules
from quantui_wire import WorkerError, notice

if TYPE_CHECKING:
    from pathlib import Path

    import torch

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before every module name in an adapter file."""


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
    tensors = _tensors(folder)
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


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.exists():
        if (folder / "adapter_model.bin").exists():
            raise WorkerError(
                "merge.pickled-adapter",
                f"{folder} holds its adapter as a pickle (adapter_model.bin).",
                "A pickle can run any code when it is read.",
                "Load it with PEFT where you trust it, and save it again: safetensors is the "
                "default.",
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
        return dict(load_file(path))
    except (SafetensorError, ValueError) as error:
        raise adapter_rules.damaged(path, error) from error


def _refuse_not_finite(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    import torch

    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WorkerError(
            "merge.not-finite",
            f"{len(broken)} tensors of the adapter in {folder} hold NaN or infinity.",
            "Its training diverged, or the file is damaged.",
            "Use an earlier checkpoint of the adapter.",
            exit_code=2,
            detail=tuple(broken[:5]),
        )
