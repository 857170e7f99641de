"""Read an adapter folder, and refuse what cannot be merged before anything large is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError, notice

if TYPE_CHECKING:
    from pathlib import Path

    import torch

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before every module name in an adapter file."""

_PROMPT_TYPES = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING",
    "PROMPT_TUNING", "P_TUNING",
}  # fmt: skip
_ROUTED_TYPES = {"POLY", "XLORA"}

_UNMERGEABLE = {
    "alora_invocation_tokens": "an activated LoRA acts only after its invocation tokens",
    "arrow_config": "Arrow chooses between adapters token by token",
    "use_qalora": "QALoRA pools the input, which no weight of the base can express",
    "layer_replication": "the adapter repeats layers of the base",
}

_BASE_CHANGING = {"pissa", "olora", "corda", "lora_ga", "loftq"}
"""Initializations that change the base itself while training (PEFT, LoraConfig)."""

_KNOWN_INITIALIZATIONS = {"default", "gaussian", "eva", "orthogonal", "mica"}


@dataclass(frozen=True)
class Adapter:
    """An adapter folder: its config as stored, and its tensors in CPU memory."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @property
    def is_lora(self) -> bool:
        """Whether the formulas of LoRA and DoRA apply."""
        return str(self.config["peft_type"]) == "LORA"

    def scale(self, module: str, rank: int) -> float:
        """What B@A is multiplied with for ``module``: alpha/r, or alpha/sqrt(r) with rslora.

        Patterns match the end of the module's name, the first match wins (PEFT,
        ``get_pattern_key``).
        """
        import re

        alpha = float(self.config.get("lora_alpha", 8))
        for pattern, value in (self.config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = float(value)
                break
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)


def read(folder: Path) -> Adapter:
    """The adapter in ``folder``, checked as far as it can be without its base.

    Raises:
        WorkerError: ``adapter.no-config``, ``adapter.damaged``, ``merge.pickled-adapter``,
            ``merge.not-mergeable``, ``merge.unconverted-init``, ``merge.unknown-setting``,
            ``merge.not-finite``.
    """
    config = _config(folder)
    _refuse_by_config(config, folder)
    tensors = _tensors(folder)
    _refuse_not_finite(tensors, folder)
    if config.get("bias", "none") != "none" and not any(n.endswith(".bias") for n in tensors):
        notice(
            f"The adapter says it trained biases (bias={config['bias']!r}) and holds none.",
            level="warning",
        )
    return Adapter(folder, config, tensors)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WorkerError(
            "adapter.no-config",
            f"{folder} has no adapter_config.json.",
            "PEFT writes one beside every adapter; without it rank and scale are unknown.",
            "Name the folder that save_pretrained wrote.",
            exit_code=2,
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise _damaged(path, "it names no peft_type")
    return config


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
        raise _damaged(path, error) from error


def _damaged(path: Path, cause: object) -> WorkerError:
    return WorkerError(
        "adapter.damaged",
        f"{path} cannot be read.",
        f"{cause}",
        "The file is cut off or is not what its name says: download or save it again.",
        exit_code=2,
    )


def _refuse_by_config(config: dict[str, Any], folder: Path) -> None:
    kind = config["peft_type"]
    if kind in _PROMPT_TYPES or kind in _ROUTED_TYPES:
        reason = (
            "It adds inputs instead of changing weights."
            if kind in _PROMPT_TYPES
            else "It mixes its parts anew for each input."
        )
        raise _not_mergeable(folder, f"peft_type {kind}", reason)
    for name, reason in _UNMERGEABLE.items():
        if config.get(name):
            raise _not_mergeable(folder, name, f"{reason[0].upper()}{reason[1:]}.")
    initialization = config.get("init_lora_weights", True)
    if isinstance(initialization, str):
        name = initialization.lower()
        if any(name.startswith(changing) for changing in _BASE_CHANGING):
            raise WorkerError(
                "merge.unconverted-init",
                f"The adapter in {folder} was trained with init_lora_weights="
                f"{initialization!r} and was not converted.",
                "That initialization changes the base itself, so the adapter does not belong to "
                "the published weights.",
                "Where it was trained, save it with PEFT's save_pretrained(..., "
                "path_initial_model_for_weight_conversion=...), which makes it a plain LoRA.",
                exit_code=2,
            )
        if name not in _KNOWN_INITIALIZATIONS:
            raise _unknown(f"init_lora_weights={initialization!r}")
    _refuse_unknown_settings(config)


def _refuse_unknown_settings(config: dict[str, Any]) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = config["peft_type"]
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise _unknown(f"peft_type {kind!r}")
    known = {field.name for field in fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
    for name, value in config.items():
        if name not in known and value not in (None, False, 0, "", [], {}):
            raise _unknown(f"{name}={value!r}")


def _unknown(setting: str) -> WorkerError:
    import peft

    return WorkerError(
        "merge.unknown-setting",
        f"adapter_config.json has {setting[:200]}, which PEFT {peft.__version__} does not know.",
        "A setting that is ignored can change what the adapter means.",
        "Update the engine's PEFT, or remove the setting if it is known to have no effect.",
        exit_code=2,
    )


def _not_mergeable(folder: Path, what: str, why: str) -> WorkerError:
    return WorkerError(
        "merge.not-mergeable",
        f"The adapter in {folder} cannot be merged: {what}.",
        why,
        "Serve it beside its base instead of merging, where the server supports its kind.",
        exit_code=2,
    )


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
