"""What an adapter_config.json asks for, and so how its adapter is merged: streamed, by PEFT, or not.

The one place that knows the fields of PEFT's configuration of a LoRA. It reads JSON and PEFT's source
text, imports neither PEFT nor torch, and takes milliseconds.
"""

# quantui_wire is imported where an error is raised: importing it takes this folder off sys.path, where
# a program still has to find its other modules.

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT_TYPES = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING",
    "PROMPT_TUNING", "P_TUNING",
}  # fmt: skip
ROUTED_TYPES = {"POLY", "XLORA"}

UNMERGEABLE = {
    "alora_invocation_tokens": "an activated LoRA acts only after its invocation tokens",
    "arrow_config": "Arrow chooses between adapters token by token",
    "use_qalora": "QALoRA pools the input, which no weight of the base can express",
    "layer_replication": "the adapter repeats layers of the base",
}

THROUGH_PEFT = {
    "kasa_config": "KaSA takes the smallest singular values out of the base",
    "velora_config": "VeLoRA keeps more than LoRA's two matrices",
    "use_bdlora": "BD-LoRA's matrices are block-diagonal",
    "monteclora_config": "MonteCLoRA keeps more than LoRA's two matrices",
}

WITHOUT_EFFECT = {
    # What the file is about.
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
    "revision", "task_type",
    # Which modules training took: the adapter's own tensors tell.
    "exclude_modules", "layers_pattern", "layers_to_transform", "target_modules",
    # How training went, or began: ``init_lora_weights`` is judged, these are its arguments.
    "corda_config", "eva_config", "lora_dropout", "lora_ga_config", "loftq_config", "megatron_config",
    "megatron_core", "merge_weights", "qalora_group_size", "runtime_config",
}  # fmt: skip
"""Fields that a merge need not look at, whatever they say. ``merge_weights`` is of PEFT before 0.3."""

STREAMED = {
    "alpha_pattern", "bias", "ensure_weight_tying", "fan_in_fan_out", "init_lora_weights",
    "lora_alpha", "lora_bias", "modules_to_save", "r", "rank_pattern", "target_parameters",
    "trainable_token_indices", "use_dora", "use_rslora",
}  # fmt: skip
"""Fields that change the result in a way that streaming computes itself."""

UNDERSTOOD = WITHOUT_EFFECT | STREAMED | set(UNMERGEABLE) | set(THROUGH_PEFT)

HARMLESS_INITIALIZATIONS = {"default", "gaussian", "eva", "orthogonal", "mica"}
"""They set A and B alone, and the adapter's file holds what became of both."""

REPEATABLE_INITIALIZATIONS = {"pissa", "olora"}
"""They take a part of the base away that its weights alone determine (``LoraLayer.pissa_init``: SVD,
``olora_init``: QR), so that PEFT takes the same part away again when it loads the adapter."""

UNREPEATABLE_INITIALIZATIONS = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Beginnings of names of those that take a part away that PEFT 0.21 cannot find again on loading:
``pissa_niter_N`` draws random numbers, CorDA and LoRA-GA look at data, LoftQ needs the quantizer and a
GPU. PEFT raises no error for the first and the third, and gives wrong answers."""


@dataclass(frozen=True)
class Route:
    """How an adapter is merged. ``through_peft``: why only PEFT can; None: it can be streamed."""

    through_peft: str | None = None


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter_config.json in ``folder``.

    Raises:
        WorkerError: ``adapter.no-config``, ``adapter.damaged``.
    """
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        from quantui_wire import WorkerError

        raise WorkerError(
            "adapter.no-config",
            f"{folder} has no adapter_config.json.",
            "PEFT writes one beside every adapter; without it rank and scale are unknown.",
            "Name the folder that save_pretrained wrote.",
            exit_code=2,
        ) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise damaged(path, "it names no peft_type")
    return config


def scale(config: dict[str, Any], module: str, rank: int) -> float:
    """What B@A is multiplied with for ``module``: alpha/r, or alpha/sqrt(r) with rslora.

    ``module`` is named as the adapter names it, without ``base_model.model.``.
    """
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def expected_rank(config: dict[str, Any], module: str) -> int:
    """The rank that the config gives ``module``: A has this many rows."""
    return int(_by_pattern(config.get("rank_pattern"), module, config.get("r", 8)))


def _by_pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:  # noqa: ANN401
    """The value of the first pattern that matches the end of the name (PEFT, ``get_pattern_key``)."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def route(config: dict[str, Any], folder: Path) -> Route:
    """Decide from the config alone how the adapter in ``folder`` is merged.

    Raises:
        WorkerError: ``merge.not-mergeable``, ``merge.unconverted-init``, ``merge.unknown-setting``,
            ``adapter.damaged``.
    """
    kind = config["peft_type"]
    if kind in PROMPT_TYPES:
        raise not_mergeable(
            folder, f"peft_type {kind}", "It adds inputs instead of changing weights."
        )
    if kind in ROUTED_TYPES:
        raise not_mergeable(folder, f"peft_type {kind}", "It mixes its parts anew for each input.")
    if kind != "LORA":
        return Route(f"{kind} is not LoRA")
    for name, reason in UNMERGEABLE.items():
        if _switched_on(config, name):
            raise not_mergeable(folder, name, f"{reason[0].upper()}{reason[1:]}.")
    _refuse_malformed(config, folder / "adapter_config.json")
    reasons = [_initialization(config, folder), _foreign_fields(config)]
    reasons += [text for name, text in THROUGH_PEFT.items() if _switched_on(config, name)]
    return Route("; ".join(text for text in reasons if text) or None)


def changes_base(config: dict[str, Any]) -> bool:
    """Whether PEFT changes the base's own weights when it loads the adapter, before any merge.

    Then neither the model with the adapter switched off nor the weights beneath it are the base.
    """
    return initialization(config) in REPEATABLE_INITIALIZATIONS or _switched_on(
        config, "kasa_config"
    )


def initialization(config: dict[str, Any]) -> str | None:
    """The name of the initialization, as PEFT compares it; None for the plain ones."""
    name = config.get("init_lora_weights", True)
    # PEFT takes OLoRA's name in any case, and the others' as they are written.
    return (name.lower() if name.lower() == "olora" else name) if isinstance(name, str) else None


def _initialization(config: dict[str, Any], folder: Path) -> str | None:
    """Why the adapter's initialization needs PEFT, or None."""
    name = initialization(config)
    if name is None or name.lower() in HARMLESS_INITIALIZATIONS:
        return None
    if name in REPEATABLE_INITIALIZATIONS:
        return f"{name} takes a part of the base away when the adapter is loaded"
    if not name.lower().startswith(UNREPEATABLE_INITIALIZATIONS):
        raise unknown_setting(f"init_lora_weights={name!r}")
    from quantui_wire import WorkerError

    raise WorkerError(
        "merge.unconverted-init",
        f"The adapter in {folder} was trained with init_lora_weights={name!r} and was not converted.",
        "That initialization changes the base itself, so the adapter does not belong to the published "
        "weights.",
        "Where it was trained, save it with PEFT's save_pretrained(..., "
        "path_initial_model_for_weight_conversion=...), which makes it a plain LoRA.",
        exit_code=2,
    )


def _foreign_fields(config: dict[str, Any]) -> str | None:
    """Why fields that nothing here understands need PEFT, or None.

    Raises:
        WorkerError: ``merge.unknown-setting``: PEFT does not know them either.
    """
    foreign = {name: value for name, value in config.items() if name not in UNDERSTOOD}
    defaults = peft_defaults() if any(is_set(value) for value in foreign.values()) else {}
    needing = []
    for name, value in foreign.items():
        if is_set(value) and name not in defaults:
            raise unknown_setting(f"{name}={value!r}")
        if is_set(value) and value != defaults[name]:
            needing.append(name)
    return f"only PEFT knows what {', '.join(needing)} means" if needing else None


def refuse_unknown(config: dict[str, Any], known: set[str]) -> None:
    """Refuse settings that are not among ``known``, the fields of the PEFT that is to merge.

    Raises:
        WorkerError: ``merge.unknown-setting``.
    """
    for name, value in config.items():
        if is_set(value) and name not in known | WITHOUT_EFFECT:
            raise unknown_setting(f"{name}={value!r}")


def is_set(value: Any) -> bool:  # noqa: ANN401
    """Whether a field's value says anything."""
    return value not in (None, False, 0, "", [], {})


def _switched_on(config: dict[str, Any], name: str) -> bool:
    """Whether a variant of LoRA is in use: for PEFT a ``..._config`` is one even when it is empty."""
    value = config.get(name)
    return is_set(value) or (value == {} and name in ("arrow_config", *THROUGH_PEFT))


def peft_defaults() -> dict[str, Any]:
    """Field -> default of the installed PEFT's LoraConfig, read from its source; {} without PEFT.

    A default that is no literal (a class of PEFT's own) is given as None.
    """
    spec = importlib.util.find_spec("peft")
    if spec is None or spec.origin is None:
        return {}
    package = Path(spec.origin).parent
    found: dict[str, Any] = {}
    for file in (package / "config.py", package / "tuners/lora/config.py"):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name in _CONFIG_CLASSES:
                found.update(_defaults_of(node))
    return found


_CONFIG_CLASSES = ("PeftConfigMixin", "PeftConfig", "LoraConfig")


def _defaults_of(node: ast.ClassDef) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        default = line.value
        if isinstance(default, ast.Call):
            given = {keyword.arg: keyword.value for keyword in default.keywords}
            default = given.get("default")
        try:
            found[line.target.id] = None if default is None else ast.literal_eval(default)
        except ValueError:
            found[line.target.id] = None
    return found


def _refuse_malformed(config: dict[str, Any], path: Path) -> None:
    def is_number(value: object) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value)

    def is_rank(value: object) -> bool:
        return isinstance(value, int) and value > 0

    for field, pattern_field, default, right in (
        ("r", "rank_pattern", 8, is_rank),
        ("lora_alpha", "alpha_pattern", 8, is_number),
    ):
        patterns = config.get(pattern_field) or {}
        if not isinstance(patterns, dict):
            raise damaged(path, f"{pattern_field} is no object")
        values = {field: config.get(field, default), **patterns}
        for name, value in values.items():
            if isinstance(value, bool) or not right(value):
                raise damaged(path, f"{name} is {str(value)[:40]!r}, which is no {field}")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise damaged(path, f"{pattern_field} has {pattern[:80]!r}: {error}") from error
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise unknown_setting(f"bias={config['bias']!r}")


def unknown_setting(setting: str) -> Exception:
    """The error of a setting whose meaning nobody here knows."""
    from quantui_wire import WorkerError

    try:
        knower = f"which PEFT {importlib.metadata.version('peft')} does not know"
    except importlib.metadata.PackageNotFoundError:
        knower = "which is unknown here, where no PEFT is installed"
    return WorkerError(
        "merge.unknown-setting",
        f"adapter_config.json has {setting[:200]}, {knower}.",
        "A setting that is ignored can change what the adapter means.",
        "Update the engine's PEFT, or remove the setting if it is known to have no effect.",
        exit_code=2,
    )


def damaged(path: Path, cause: object) -> Exception:
    """The error of a file of the adapter that is not what its name says."""
    from quantui_wire import WorkerError

    return WorkerError(
        "adapter.damaged",
        f"{path} cannot be read.",
        f"{cause}",
        "The file is cut off or is not what its name says: download or save it again.",
        exit_code=2,
    )


def not_mergeable(folder: Path, what: str, why: str) -> Exception:
    """The error of an adapter of which no weight of the base can express ``what``."""
    from quantui_wire import WorkerError

    return WorkerError(
        "merge.not-mergeable",
        f"The adapter in {folder} cannot be merged: {what}.",
        why,
        "Serve it beside its base instead of merging, where the server supports its kind.",
        exit_code=2,
    )
