"""Let transformers load patchworks instead of tensors, and look at what each parameter is made of.

transformers' own loop renames, collects and converts (version 5: ``core_model_loading``), so that
names, order of experts, prefixes and conversions are the installed version's. Only its last step,
which would set the parameter, is taken over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

from model_description.patchwork import Patchwork, Shape, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Loaded:
    """What came of loading. ``made``: parameter -> its patchwork; ``failed``: parameter -> why not;
    ``missing``: parameters that nothing in the checkpoint makes; ``info``: transformers' report.
    """

    made: dict[str, Patchwork]
    failed: dict[str, str]
    missing: set[str]
    info: Any


def load(model: Any, shapes: dict[str, Shape]) -> Loaded:  # noqa: ANN401 - transformers has no stubs
    """Load stand-ins of the checkpoint tensors ``shapes`` into ``model``; it keeps its parameters.

    Raises:
        WorkerError: ``engine.lacks-packages``: this transformers loads in another way.
    """
    try:
        from transformers import core_model_loading
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.modeling_utils import LoadStateDictConfig
    except ImportError as error:
        raise _other_transformers(error) from error
    if not hasattr(core_model_loading, "set_param_for_module"):
        raise _other_transformers("core_model_loading has no set_param_for_module")
    made: dict[str, Patchwork] = {}
    names = set(model.state_dict())

    def note(_: object, name: str, value: Patchwork, info: Any, *__: object) -> None:  # noqa: ANN401
        if name in names:
            made[name] = value
            info.missing_keys.discard(name)

    original = core_model_loading.set_param_for_module
    core_model_loading.set_param_for_module = note
    try:
        info, _ = core_model_loading.convert_and_load_state_dict_in_model(
            model=model,
            state_dict={name: Patchwork.stored(name, shape) for name, shape in shapes.items()},
            load_config=LoadStateDictConfig(weight_mapping=get_model_conversion_mapping(model)),
        )
    finally:
        core_model_loading.set_param_for_module = original
    missing = set(info.missing_keys)
    failed = {}
    operations = {name: _operation(text) for name, text in info.conversion_errors.items()}
    if operations:
        # A failed conversion is reported for the first of its parameters; the others are missing.
        reasons = ", ".join(sorted(set(operations.values())))
        failed = {name: operations.get(name, reasons) for name in missing}
    return Loaded(made, failed, missing - set(failed), info)


def _operation(report: str) -> str:
    """Why a conversion failed, from transformers' text about it."""
    found = re.search(r"\nError: (\w+) on tensors destined for ", report)
    return f"operation {found[1]}" if found else report.strip().splitlines()[-1][:200]


def _other_transformers(cause: object) -> WorkerError:
    import transformers

    return WorkerError(
        "engine.lacks-packages",
        f"transformers {transformers.__version__} does not tell how it loads a checkpoint.",
        f"{cause}",
        "Use an engine with transformers 5.",
    )


def shared(model: Any, loaded: Loaded) -> dict[str, str]:  # noqa: ANN401
    """Missing parameter -> the loaded parameter it is the same tensor as; ties the model's weights.

    transformers ties what is missing, in either direction. What is stored twice it ties only if the
    values are equal (5.19: ``tie_weights``), and on the meta device leaves alone.
    """
    missing = set(loaded.missing)
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    tensors = model.state_dict(keep_vars=True)
    made = {id(tensor): name for name, tensor in tensors.items() if name in loaded.made}
    return {name: made[id(tensors[name])] for name in loaded.missing if id(tensors[name]) in made}


def really_missing(model: Any, loaded: Loaded, ties: dict[str, str]) -> list[str]:  # noqa: ANN401
    """Parameters that loading would fill with random values, less those the model says may be."""
    loaded.info.missing_keys = loaded.missing - set(ties)
    model._adjust_missing_and_unexpected_keys(loaded.info)
    return sorted(loaded.info.missing_keys)


def stored_twice(ties: dict[str, str], loaded: Loaded) -> set[frozenset[str]]:
    """Pairs of ``ties`` (as the model's config and class ask for) of which both parts are stored."""
    return {frozenset(pair) for pair in ties.items() if all(name in loaded.made for name in pair)}


def pieces(loaded: Loaded, sizes: dict[str, Shape]) -> dict[str, dict[str, Any]]:
    """The description of each parameter of ``sizes`` that the checkpoint makes or fails to make."""
    described: dict[str, dict[str, Any]] = {}
    for name, shape in sizes.items():
        if name in loaded.failed:
            described[name] = {"shape": list(shape), "unmapped": loaded.failed[name]}
        elif name in loaded.made:
            try:
                entry: dict[str, Any] = {"pieces": loaded.made[name].described(shape)}
            except UnsupportedError as error:
                entry = {"unmapped": str(error)}
            described[name] = {"shape": list(shape), **entry}
    return described


def renamed(model: Any, modules: Iterable[str]) -> dict[str, str | None]:  # noqa: ANN401
    """Where each module path, perhaps of an older version of the model, is in ``model``.

    Itself where it exists; None where it does not, or was fused with others into one parameter.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    existing = {f"{name}.weight": name for name, _ in model.named_modules() if name}
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    found: dict[str, str | None] = {}
    # In the order of loading: some renamings start to work at the first name that they match.
    for module in sorted(modules, key=lambda name: dot_natural_key(f"{name}.weight")):
        key = f"{module}.weight"
        new, converted_from = rename_source_key(
            key, renamings, converters, model.base_model_prefix, existing
        )
        if key in existing:
            found[module] = module
        else:
            found[module] = existing.get(new) if converted_from is None else None
    return found
