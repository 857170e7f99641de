"""What the vLLM of this interpreter can do: methods, platform, plugins, flags of `vllm serve`.

The job is empty; the result is what ``Capabilities.from_dict`` of ``quantui.engines`` reads.
Nothing is loaded onto a device. 20 to 30 s on 2 cores, nearly all of it imports.
"""

from __future__ import annotations

import argparse
import importlib
import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

import quantui_wire as wire

if TYPE_CHECKING:
    from collections.abc import Callable

# vLLM moves these between releases: the newest place first.
_PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
_ARGPARSE = ("vllm.utils.argparse_utils", "vllm.utils")


def first_with(modules: tuple[str, ...], attribute: str) -> Any:  # noqa: ANN401
    """The attribute from the first of ``modules`` that has it."""
    for name in modules:
        try:
            return getattr(importlib.import_module(name), attribute)
        except (ImportError, AttributeError):
            continue
    raise wire.WorkerError(
        "engine.unknown-vllm",
        f"This vLLM has no {attribute} where quantui looks for it.",
        f"Looked in {', '.join(modules)}.",
        "Use a vLLM that this quantui knows (0.32 is tested), or update quantui.",
    )


def plain(value: Any) -> Any:  # noqa: ANN401
    """``value`` if JSON carries it as it is, else its text."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def load_plugins(problems: list[str]) -> list[str]:
    """Load the general plugins as `vllm serve` does; the names of those that loaded."""
    from vllm.plugins import DEFAULT_PLUGINS_GROUP, load_general_plugins, load_plugins_by_group

    declared = {entry.name for entry in metadata.entry_points(group=DEFAULT_PLUGINS_GROUP)}
    loaded = set(load_plugins_by_group(DEFAULT_PLUGINS_GROUP))
    for name in sorted(declared - loaded):
        problems.append(f"The plugin {name} is installed and was not loaded.")
    load_general_plugins()
    return sorted(loaded)


def activation_dtypes(config: Any) -> list[Any]:  # noqa: ANN401
    """What the class declares; some classes write the method without ``classmethod``."""
    try:
        return list(config.get_supported_act_dtypes())
    except TypeError:
        return list(config.get_supported_act_dtypes(config))


def methods() -> list[dict[str, Any]]:
    """Every quantization method, with its class and what the class declares."""
    from vllm.model_executor.layers import quantization as module

    found = []
    for name in sorted(module.QUANTIZATION_METHODS):
        entry: dict[str, Any] = {
            "name": name,
            "config_class": None,
            "min_capability": None,
            "dtypes": [],
            "problem": "",
        }
        try:
            config = module.get_quantization_config(name)
            entry["config_class"] = f"{config.__module__}.{config.__qualname__}"
            entry["min_capability"] = int(config.get_min_capability())
            entry["dtypes"] = [str(d).removeprefix("torch.") for d in activation_dtypes(config)]
        # A method whose library is missing or broken must not hide the others.
        except Exception as error:  # noqa: BLE001
            entry["problem"] = f"{type(error).__name__}: {error}"[:300]
        found.append(entry)
    return found


def type_name(convert: Callable[..., Any] | None) -> tuple[str | None, bool]:
    """The name of an option's type, and whether it also takes ``None``.

    vLLM wraps types that may be None in a closure, ``_optional_type``; the name inside counts.
    """
    if convert is None:
        return None, False
    optional = getattr(convert, "__name__", "") == "_optional_type"
    for cell in (getattr(convert, "__closure__", None) or ()) if optional else ():
        if callable(cell.cell_contents):
            return getattr(cell.cell_contents, "__name__", None), True
    return getattr(convert, "__name__", None), optional


def flags() -> list[dict[str, Any]]:
    """Every option of the real parser of `vllm serve`."""
    make = first_with(_PARSERS, "make_arg_parser")
    parser = make(first_with(_ARGPARSE, "FlexibleArgumentParser")())
    found = []
    for action in parser._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        kind, optional = type_name(action.type)
        choices = None if action.choices is None else [str(choice) for choice in action.choices]
        found.append(
            {
                "options": list(action.option_strings),
                "action": type(action).__name__,
                "type_name": kind,
                "optional": optional,
                "choices": choices,
                "nargs": plain(action.nargs),
                "default": plain(action.default),
            }
        )
    return found


def main(job: dict[str, Any]) -> dict[str, Any]:
    """The whole answer; the job asks nothing further."""
    problems: list[str] = []
    wire.phase("import vllm")
    import torch
    import vllm

    wire.phase("plugins")
    plugins = load_plugins(problems)
    from vllm.platforms import current_platform

    capability = current_platform.get_device_capability()
    wire.phase("methods")
    known = methods()
    wire.phase("flags")
    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "platform": type(current_platform).__name__,
        "device": str(current_platform.device_type),
        "device_capability": None if capability is None else [capability.major, capability.minor],
        "plugins": plugins,
        "methods": known,
        "flags": flags(),
        "problems": problems,
    }


if __name__ == "__main__":
    wire.run(main)
