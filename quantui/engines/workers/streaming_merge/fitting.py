"""Does the adapter fit the base wholly? Every tensor has its place and shape, and none is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import adapter_rules as rules

from streaming_merge.effects import target_parameter, token_indices
from streaming_merge.heads import is_added_head
from streaming_merge.placement import UnmappedError
from streaming_merge.refusals import (
    keys_unmatched,
    no_key_matched,
    shape_mismatch,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streaming_merge.adapter_files import AdapterFile, Parts
    from streaming_merge.placement import Places


ALL_LINEAR = "all-linear"
LINEAR_CLASSES = ("Linear", "Conv1D")
"""What ``all-linear`` stands for, but for the head: only the model's code says which layers they are."""


def check_fits(
    adapter: AdapterFile, parts: Parts, places: Places, *, added: Sequence[str] = ()
) -> None:
    """Refuse anything but a whole fit, before a byte is written.

    ``added`` are whole tensors that the base does not have and the result will.

    Raises:
        WorkerError: ``merge.no-key-matched``, ``merge.keys-unmatched``, ``merge.shape-mismatch``,
            ``merge.not-mergeable``.
        UnmappedError: Only PEFT knows how this kind of layer is merged.
    """
    extra: list[str] = list(parts.foreign)
    absent: list[str] = []
    wrong: list[str] = []
    for module, found in parts.modules.items():
        _check_module(adapter, module, found, places, extra, absent, wrong)
    for name, key in parts.whole.items():
        if name in added:
            continue
        _check_whole(adapter, name, key, places, extra, wrong)
    if len(extra) >= len(adapter.tensors):
        raise no_key_matched(adapter.folder, len(adapter.tensors), extra)
    absent += sorted(_asked_for(adapter, places) - _held(parts, places))
    if extra or absent:
        raise keys_unmatched(adapter.folder, extra, absent)
    if wrong:
        raise shape_mismatch(adapter.folder, wrong)


def _check_module(
    adapter: AdapterFile,
    module: str,
    found: Mapping[str, str],
    places: Places,
    extra: list[str],
    absent: list[str],
    wrong: list[str],
) -> None:
    tensors, config = adapter.tensors, dict(adapter.config)
    plain = module.replace(".base_layer", "")
    parameter = target_parameter(adapter, module, places) if "A" in found else None
    placed = places.module(plain)
    if placed is None and parameter is None:
        if _is_of_fused_expert(plain, places):
            raise UnmappedError("its pairs are for single experts, which this base stores fused")
        extra += found.values()
        return
    weight = parameter or f"{placed}.weight"
    shape = places.shape(weight)
    if "base.weight" in found:
        shape = tensors[found["base.weight"]].shape
    for one, other in (("A", "B"), ("embedding_A", "embedding_B")):
        if (one in found) != (other in found):
            absent.append(f"{module}.{other if one in found else one}")
            return
    if ("magnitude" in found) != (bool(config.get("use_dora")) and "tokens" not in found) and (
        "A" in found or "embedding_A" in found
    ):
        if "magnitude" in found:
            extra.append(found["magnitude"])
        else:
            raise rules.not_mergeable(
                adapter.folder,
                f"it is DoRA and {module} has no magnitude",
                "Without the magnitude vector the weights it was trained to are unknown.",
            )
    if "B.bias" in found and places.shape(f"{placed}.bias") is None:
        raise rules.not_mergeable(
            adapter.folder,
            f"it adds a bias to {module}",
            "The base's layer has none, so that there is nothing to add it to.",
        )
    if shape is None:
        extra += found.values()
        return
    for part in ("A", "B", "embedding_A", "embedding_B"):
        if part in found and len(tensors[found[part]].shape) != 2:
            raise UnmappedError(f"{module} is a convolution")
    if "A" in found:
        name = parameter or plain
        transposed = places.stored_transposed(placed or plain)
        a, b = tensors[found["A"]].shape, tensors[found["B"]].shape
        wrong += _wrong_pair(config, name, found["A"], a, b, shape, transposed, places, parameter)
    if "embedding_A" in found:
        a, b = tensors[found["embedding_A"]].shape, tensors[found["embedding_B"]].shape
        wrong += _wrong_shapes(config, plain, found["embedding_A"], a, b, (b[0], a[1]), shape[::-1])
    if "magnitude" in found:
        # By output; for an embedding by hidden value.
        transposed = "embedding_A" in found or bool(places.stored_transposed(placed or plain))
        outputs = shape[-1] if transposed else shape[0]
        size = tensors[found["magnitude"]].shape
        if max(size) != outputs or tensors[found["magnitude"]].rows not in (1, outputs):
            wrong.append(f"{found['magnitude']} is {list(size)}, for {outputs} outputs")
    if "tokens" in found:
        rows = token_indices(adapter, plain)
        held = tensors[found["tokens"]].shape
        if held != (len(rows), shape[-1]) or any(not 0 <= row < shape[0] for row in rows):
            wrong.append(
                f"{found['tokens']} is {list(held)}, for {len(rows)} tokens of {list(shape)}"
            )
    if "base.weight" in found and places.shape(weight) is not None:
        wrong += _wrong_whole(weight, found["base.weight"], shape, places.shape(weight) or ())
    if "base.bias" in found and places.shape(f"{placed}.bias") is None:
        extra.append(found["base.bias"])


def _is_of_fused_expert(module: str, places: Places) -> bool:
    """Whether ``module`` is an expert of transformers 4 in a base that keeps them in one tensor."""
    found = places.description
    fused = found is not None and any(name.endswith(".experts") for name in found["modules"])
    return fused and re.search(r"\.experts\.\d+\.", module) is not None


def _wrong_pair(
    config: dict[str, object],
    name: str,
    key: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    shape: tuple[int, ...],
    transposed: bool | None,
    places: Places,
    parameter: str | None,
) -> list[str]:
    if parameter is not None and len(shape) == 3:
        swapped = places.experts_transposed(parameter.rpartition(".")[0])
        outputs = (shape[2], shape[1]) if swapped else (shape[1], shape[2])
        per_expert = (a[0] // shape[0], a[1])
        if a[0] % shape[0]:
            return [f"{key} has {a[0]} rows, for {shape[0]} experts"]
        return _wrong_shapes(
            config, name, key, per_expert, (b[0], b[1] // shape[0]), (b[0], a[1]), outputs
        )
    if len(shape) != 2:
        raise UnmappedError(f"{name} is no matrix")
    if transposed is None:
        raise UnmappedError(f"the orientation of {name} is not known")
    stored = shape[::-1] if transposed else shape
    return _wrong_shapes(config, name, key, a, b, (b[0], a[1]), stored)


def _wrong_shapes(
    config: dict[str, object],
    name: str,
    key: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    implied: tuple[int, int],
    stored: tuple[int, ...],
) -> list[str]:
    rank = rules.expected_rank(config, name)
    if a[0] != b[1]:
        return [f"the ranks of {name} differ: A is {list(a)} and B is {list(b)}"]
    if a[0] != rank:
        return [f"{key} has the rank {a[0]}; adapter_config.json says {rank}"]
    if implied != tuple(stored):
        return [f"{key} and its B are for a weight of {list(implied)}; the base has {list(stored)}"]
    return []


def _check_whole(
    adapter: AdapterFile, name: str, key: str, places: Places, extra: list[str], wrong: list[str]
) -> None:
    module, _, leaf = name.rpartition(".")
    shape = places.shape(name)
    if shape is None:
        shape = places.shape(f"{places.module(module) or module}.{leaf}")
    if shape is None and not _is_tied_head(module, places):
        extra.append(key)
    elif shape is not None:
        wrong += _wrong_whole(name, key, adapter.tensors[key].shape, shape)


def _is_tied_head(module: str, places: Places) -> bool:
    found = places.description
    return found is not None and bool(found["tied"]) and module == found["output_embedding"]


def _wrong_whole(name: str, key: str, held: tuple[int, ...], shape: tuple[int, ...]) -> list[str]:
    # A vocabulary may have grown or shrunk; nothing else may.
    resized = (
        len(held) == len(shape) == 2 and held[1] == shape[1] and not re.search(r"\.\d+\.", name)
    )
    if held == shape or resized:
        return []
    return [f"{key} is {list(held)}; the base has {list(shape)}"]


def _asked_for(adapter: AdapterFile, places: Places) -> set[str]:
    """Modules of the base that target_modules names, as PEFT matches them.

    Source: ``check_target_module_exists`` and ``_maybe_include_all_linear_layers`` of PEFT 0.21.
    """
    config = adapter.config
    targets = config.get("target_modules")
    if not targets:
        return set()
    if targets == ALL_LINEAR:
        found = places.description or {"modules": {}, "output_embedding": None}
        linear = {n for n, kind in found["modules"].items() if kind["class"] in LINEAR_CLASSES}
        targets = sorted(linear - {found["output_embedding"]})
    return {name for name in places.modules() if _is_target(name, config, targets)}


def _is_target(name: str, config: Mapping[str, object], targets: object) -> bool:
    if _named(name, config.get("exclude_modules")):
        return False
    saved = config.get("modules_to_save")
    if isinstance(saved, list) and any(
        re.match(rf"(^|.*\.){re.escape(str(module))}($|\..*)", name) for module in saved
    ):
        return False
    if not _named(name, targets):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(targets, str) or layers in (None, []) or name in _names(targets):
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    wanted = layers if isinstance(layers, list) else [layers]
    for pattern in patterns if isinstance(patterns, list) else ():
        if found := re.match(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", name):
            return int(found["index"]) in wanted
    return False


def _named(name: str, by: object) -> bool:
    if isinstance(by, str):
        return re.fullmatch(by, name) is not None
    return any(name == key or name.endswith(f".{key}") for key in _names(by))


def _names(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _held(parts: Parts, places: Places) -> set[str]:
    held = {module.replace(".base_layer", "") for module in parts.modules}
    held |= {name.rpartition(".")[0] for name in parts.whole}
    return held | {places.module(name) or name for name in held}


def needs_description(
    adapter: AdapterFile, parts: Parts, places: Places, config: Mapping[str, object]
) -> bool:
    """Whether only transformers can say what the adapter's modules are in this base.

    Yes for names that the checkpoint does not have, for parameters of stacked experts, for weights whose
    orientation a model type leaves open, and for a head or embedding that may be tied.
    """
    if adapter.config.get("target_parameters") or adapter.config.get("fan_in_fan_out"):
        return True
    if adapter.config.get("target_modules") == ALL_LINEAR:
        return True
    if places.stored_transposed("") is None:
        return True
    plain = [module.replace(".base_layer", "") for module in parts.modules]
    whole = [name for name in parts.whole if not is_added_head(adapter, name, places, config)]
    names = [*plain, *(name.rpartition(".")[0] for name in whole)]
    if any(places.module(name) is None for name in plain):
        return True
    if any(name not in places.tensors for name in whole):
        return True
    outside_layers = [name for name in names if not re.search(r"(^|\.)\d+(\.|$)", name)]
    return bool(outside_layers) and not surely_untied(config, places)


def surely_untied(config: Mapping[str, object], places: Places) -> bool:
    """Whether config and checkpoint both say that the head is a tensor of its own."""
    text = config.get("text_config")
    said = [part.get("tie_word_embeddings") for part in (config, text) if isinstance(part, dict)]
    return False in said and True not in said and places.shape("lm_head.weight") is not None
