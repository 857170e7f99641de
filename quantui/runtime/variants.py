"""Find quantized copies of a model: on the Hub, in its cache, and among quantui's own artifacts."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quantui.domain.choosing.variants import (
    Variant,
    classify,
    for_another_runtime,
    named_after,
    quantized_from,
    ranked,
    same_architecture,
)
from quantui.domain.errors import QuantuiError
from quantui.domain.weight_choice import choose_model_weights
from quantui.runtime import hub
from quantui.runtime.hub_listing import TIMEOUT_S, listing
from quantui.runtime.local_variants import hub_id_of, local_variants

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantui.domain.models import ModelSpec

_LISTED = 100
"""Repositories asked of one listing; the most downloaded come first."""
_EXPAND = (
    "config",
    "downloads",
    "gated",
    "lastModified",
    "library_name",
    "likes",
    "sha",
    "tags",
)
_SHA = re.compile(r"[0-9a-f]{40}")
_CONFIG_BYTES = 2 * 1024 * 1024
_WELL_KNOWN_BY_LISTING = frozenset({"gguf", "bitsandbytes"})
"""Methods of which config.json tells nothing that the Hub's listing does not."""


@dataclass(frozen=True)
class VariantSearch:
    """What was found, best first, and what kept more from being found, in words."""

    variants: tuple[Variant, ...]
    notes: tuple[str, ...] = ()


def find_variants(
    model: ModelSpec, *, offline: bool | None = None, limit: int = 20
) -> tuple[Variant, ...]:
    """Quantized copies of ``model``, best first; see :func:`search_variants`."""
    return search_variants(model, offline=offline, limit=limit).variants


def search_variants(
    model: ModelSpec, *, offline: bool | None = None, limit: int = 20
) -> VariantSearch:
    """Quantized copies of ``model``: on this machine, and on the Hub unless ``offline``.

    ``offline`` None follows ``HF_HUB_OFFLINE``. On the Hub a copy is known by its ``base_model`` tag, or by
    its name where the model's own publisher made it. What is for other programs than vLLM (MLX, OpenVINO,
    EXL2 and such) is left out. Never fails: a Hub that cannot be asked is a note.
    """
    bases = _bases(model)
    found = {variant.ref: variant for variant in local_variants(model, bases)}
    notes: list[str] = []
    if not bases:
        notes.append(f"{model.ref} names no Hub id: the Hub cannot be asked for copies of it.")
    elif hub.is_offline(offline):
        notes.append("offline: only this machine was searched for quantized copies")
    else:
        try:
            with hub.explained(bases[0]):
                for variant in _on_hub(model, bases, limit):
                    found[variant.ref] = _joined(found.get(variant.ref), variant)
        except QuantuiError as error:
            notes.append(f"The Hub was not searched for quantized copies: {error.what} {error.why}")
    publisher = bases[0].partition("/")[0] if bases else ""
    found.pop(model.ref, None)
    return VariantSearch(ranked(found.values(), publisher=publisher, limit=limit), tuple(notes))


def _bases(model: ModelSpec) -> tuple[str, ...]:
    """The ids whose quantized copies are copies of this model: its own; for one that is quantized, its base's too."""
    own = hub_id_of(model)
    ids = [own] if own else []
    if model.quantization:
        ids += [base for base in _stated_bases(model) if base not in ids]
    return tuple(ids)


def _stated_bases(model: ModelSpec) -> list[str]:
    from quantui.runtime.local_variants import card_bases_in

    return [] if model.path is None else list(card_bases_in(model.path))


def _joined(here: Variant | None, there: Variant) -> Variant:
    """What the Hub says of a repository, kept beside the copy of it that is on this machine."""
    if here is None:
        return there
    return replace(
        here,
        downloads=there.downloads,
        likes=there.likes,
        gated=there.gated,
        last_modified=there.last_modified,
        evidence=tuple(dict.fromkeys((*here.evidence, *there.evidence))),
    )


def _on_hub(model: ModelSpec, bases: tuple[str, ...], limit: int) -> list[Variant]:
    searches = [search for base in bases for search in _searches(base)]
    with ThreadPoolExecutor(max_workers=len(searches)) as pool:
        answers = list(pool.map(lambda search: listing(search[2], _EXPAND), searches))
    found: dict[str, Variant] = {}
    tags: dict[str, tuple[str, ...]] = {}
    for (base, why, _), entries in zip(searches, answers, strict=True):
        for entry in entries:
            variant = _variant(entry, model, base, why)
            if variant is not None and variant.ref not in {*found, *bases}:
                found[variant.ref], tags[variant.ref] = variant, _texts(entry.get("tags"))
    best = ranked(found.values(), publisher=bases[0].partition("/")[0], limit=limit)
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda each: _looked_at(each, tags[each.ref]), best))


def _searches(base: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(base, evidence, query). The relation in a tag is the Hub's own guess: others are looked at too."""
    publisher, _, name = base.partition("/")
    quantized = f"base_model:quantized:{base}"
    why = f"tag {quantized}"
    yield base, why, {"filter": [quantized, "safetensors"], "limit": _LISTED}
    yield base, why, {"filter": [quantized, "gguf"], "limit": 10}
    changed = [f"base_model:finetune:{base}", "safetensors"]
    why = f"tag base_model:{base}, quantized by its config"
    yield base, why, {"filter": changed, "limit": _LISTED}
    if publisher and name:
        why = f"{publisher} named it after {name}"
        yield base, why, {"author": publisher, "search": name, "limit": _LISTED}


def _variant(entry: dict[str, Any], model: ModelSpec, base: str, why: str) -> Variant | None:
    """A repository of a listing as a variant; None when it is none, or not for vLLM."""
    tags, ref = _texts(entry.get("tags")), entry.get("id")
    config = entry.get("config")
    config = config if isinstance(config, dict) else {}
    if not isinstance(ref, str) or not _is_id(ref) or not same_architecture(config, model.config):
        return None
    found = classify(ref, config, tags)
    if found is None:
        return None
    stored, told_by = found
    by_config = told_by.startswith("quantization_config")
    # A tag may be of further files; what vLLM reads is there where the config names its format.
    kinds = () if by_config and stored.method else (*tags, str(entry.get("library_name") or ""))
    if for_another_runtime(ref, kinds):
        return None
    if base not in (says := quantized_from(tags)) and (says or not by_config):
        # By the Hub's relation it is a copy of another model, or else a change of this one.
        return None
    if not why.startswith("tag ") and not named_after(ref, base):
        return None
    gated, modified = entry.get("gated"), entry.get("lastModified")
    return Variant(
        ref=ref,
        publisher=ref.partition("/")[0],
        method=stored.method,
        quant_method=stored.quant_method,
        bits=stored.bits,
        source="hub",
        base_ref=base,
        evidence=(why, f"method: {told_by}"),
        group_size=stored.group_size,
        activation_bits=stored.activation_bits,
        text=stored.text,
        downloads=_count(entry.get("downloads")),
        likes=_count(entry.get("likes")),
        revision=_commit(entry.get("sha")),
        gated=gated if isinstance(gated, bool | str) else None,
        last_modified=modified if isinstance(modified, str) else None,
    )


def _looked_at(variant: Variant, tags: tuple[str, ...]) -> Variant:
    """With the size of its weights, and with the method as its whole config.json has it, where they can be read."""
    from huggingface_hub import HfApi

    try:
        listing = HfApi(library_name="quantui").model_info(
            variant.ref, revision=variant.revision, files_metadata=True, timeout=TIMEOUT_S
        )
        sizes = {file.rfilename: file.size for file in listing.siblings or ()}
        variant = replace(variant, size_bytes=_weight_bytes(sizes))
        if variant.quant_method in _WELL_KNOWN_BY_LISTING:
            return variant
        config = json.loads(_small_file(variant.ref, "config.json", variant.revision))
    except Exception:  # noqa: BLE001 - the HTTP library's classes differ by version
        # A gated repository's files, or one that has changed this moment: the listing's word stays.
        return variant
    found = classify(variant.ref, config, tags) if isinstance(config, dict) else None
    if found is None:
        return variant
    stored, told_by = found
    return replace(
        variant,
        method=stored.method or variant.method,
        quant_method=stored.quant_method or variant.quant_method,
        bits=stored.bits or variant.bits,
        group_size=stored.group_size,
        activation_bits=stored.activation_bits or variant.activation_bits,
        text=stored.text,
        evidence=(*variant.evidence[:-1], f"method: {told_by}"),
    )


def _weight_bytes(sizes: dict[str, int | None]) -> int | None:
    """Bytes of the weights that vLLM would load; None for GGUF, of which one file of several is chosen."""
    choice = choose_model_weights(sizes)
    names: Iterable[str] = choice.names
    if choice.index is not None:
        names = [
            name
            for name in sizes
            if name.endswith(".safetensors") and "-of-" in name and "/" not in name
        ]
    if choice.kind not in {"safetensors", "pickle"}:
        return None
    known = [sizes[name] for name in names]
    total = sum(size for size in known if size)
    return total if known and all(known) else None


def _small_file(ref: str, name: str, revision: str | None) -> bytes:
    """A file of a repository, read without keeping it; raises ValueError above 2 MiB."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    url = hf_hub_url(ref, name, revision=revision)
    headers = build_hf_headers(library_name="quantui")
    data = bytearray()
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes(64 * 1024):
            data += chunk
            if len(data) > _CONFIG_BYTES:
                raise ValueError(name)
    return bytes(data)


def _is_id(ref: str) -> bool:
    if ref.count("/") != 1:
        return False
    try:
        hub.check_repo_id(ref)
    except QuantuiError:
        return False
    return True


def _texts(values: object) -> tuple[str, ...]:
    return tuple(v for v in values if isinstance(v, str)) if isinstance(values, list) else ()


def _commit(value: object) -> str | None:
    return value if isinstance(value, str) and _SHA.fullmatch(value) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
