"""Quantized copies of a model that are on this machine: in the Hub cache, and made by quantui."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.choosing.variants import (
    Variant,
    card_bases,
    classify,
    for_another_runtime,
    named_after,
    same_shape,
)
from quantui.domain.errors import QuantuiError
from quantui.domain.weight_choice import choose_model_weights
from quantui.runtime import hub
from quantui.runtime.artifacts import ArtifactStore, read_artifact
from quantui.runtime.checkpoint_files import FolderFiles, read_json, read_optional_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.choosing.variants import VariantSource
    from quantui.domain.models import ModelSpec

_CARD_BYTES = 1024 * 1024


def local_variants(model: ModelSpec, bases: tuple[str, ...]) -> Iterator[Variant]:
    """Whole quantized copies of ``model`` (on the Hub one of ``bases``). What cannot be read is passed over."""
    yield from _artifacts(model)
    for ref, snapshot in _snapshots():
        if ref not in bases:
            yield from _cached(model, bases, ref, snapshot)


def hub_id_of(model: ModelSpec) -> str | None:
    """The Hub id of ``model``: what the user wrote, or the repository whose snapshot the folder is."""
    if model.source != "folder":
        return model.ref
    folder = Path(model.path or model.ref)
    if folder.parent.name == "snapshots":
        return _id_of(folder.parent.parent)
    return None


def card_bases_in(folder: str) -> tuple[str, ...]:
    """What the model card in a folder names as ``base_model``."""
    try:
        files = FolderFiles(Path(folder), ref=folder)
    except (QuantuiError, OSError):
        return ()
    return _card_bases(files)


def _artifacts(model: ModelSpec) -> Iterator[Variant]:
    try:
        folders = sorted(ArtifactStore().root.iterdir())
    except OSError:
        return
    for folder in folders:
        artifact = read_artifact(folder) if folder.is_dir() else None
        inputs = artifact.record.get("inputs") if artifact else None
        if isinstance(inputs, dict) and inputs.get("base") == model.fingerprint:
            files = _opened(folder, str(folder), "folder")
            if files is not None:
                evidence = "quantui made it of this model"
                yield from _variant(files, model.ref, evidence, publisher="quantui")


def _cached(
    model: ModelSpec, bases: tuple[str, ...], ref: str, snapshot: Path
) -> Iterator[Variant]:
    files = _opened(snapshot, ref, "hub-cache")
    if files is None:
        return
    try:
        if hub.lacking(files, adapter=False):
            return
        config = read_json(files, "config.json")
    except (QuantuiError, OSError):
        return
    for base in bases:
        if base in _card_bases(files):
            yield from _variant(files, base, f"its card names {base} as base_model")
            return
    for base in bases:
        if named_after(ref, base) and same_shape(config, model.config):
            evidence = f"named after {base}, and of the same dimensions"
            yield from _variant(files, base, evidence)
            return


def _variant(
    files: FolderFiles, base: str, evidence: str, *, publisher: str = ""
) -> Iterator[Variant]:
    """The folder as a variant, if it is quantized and for vLLM."""
    try:
        config = read_optional_json(files, "config.json")
    except (QuantuiError, OSError):
        return
    gguf = any(name.endswith(".gguf") for name in files.sizes)
    found = classify(files.ref, config, ("gguf",) if gguf else ())
    if found is None or for_another_runtime(files.ref) or "quantization" in (config or {}):
        # config.json has "quantization" beside "quantization_config" where MLX wrote it.
        return
    stored, told_by = found
    yield Variant(
        ref=files.ref,
        publisher=publisher or files.ref.partition("/")[0],
        method=stored.method,
        quant_method=stored.quant_method,
        bits=stored.bits,
        source="folder" if files.source == "folder" else "hub-cache",
        base_ref=base,
        evidence=(evidence, f"method: {told_by}"),
        group_size=stored.group_size,
        activation_bits=stored.activation_bits,
        text=stored.text,
        size_bytes=_weight_bytes(files),
        revision=files.revision,
        path=files.path,
    )


def _weight_bytes(files: FolderFiles) -> int | None:
    choice = choose_model_weights(files.sizes)
    names = choice.names
    if choice.index is not None:
        try:
            weight_map = read_json(files, choice.index).get("weight_map")
        except (QuantuiError, OSError):
            return None
        shards = weight_map.values() if isinstance(weight_map, dict) else ()
        names = tuple({name for name in shards if isinstance(name, str)})
    sizes = [files.sizes.get(name) for name in names]
    return sum(size or 0 for size in sizes) if sizes and None not in sizes else None


def _card_bases(files: FolderFiles) -> tuple[str, ...]:
    if not 0 < files.sizes.get("README.md", 0) < _CARD_BYTES:
        return ()
    try:
        return card_bases(files.read("README.md").decode("utf-8", "replace"))
    except (QuantuiError, OSError):
        return ()


def _opened(folder: Path, ref: str, source: VariantSource) -> FolderFiles | None:
    try:
        if source == "hub-cache":
            return FolderFiles(folder, ref=ref, source="hub-cache", revision=folder.name)
        return FolderFiles(folder, ref=ref)
    except (QuantuiError, OSError):
        return None


def _snapshots() -> Iterator[tuple[str, Path]]:
    """(Hub id, newest snapshot) of every model in the Hub cache; the branch main's where it has been asked for."""
    from huggingface_hub import constants

    try:
        repositories = sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*"))
    except OSError:
        return
    for repository in repositories:
        ref = _id_of(repository)
        try:
            hub.check_repo_id(ref or "")
        except QuantuiError:
            continue
        snapshot = hub.cached_snapshot(ref or "", None, adapter=False) or _newest(repository)
        if ref is not None and snapshot is not None:
            yield ref, snapshot


def _newest(repository: Path) -> Path | None:
    try:
        folders = [path for path in (repository / "snapshots").iterdir() if path.is_dir()]
        return max(folders, key=lambda path: path.stat().st_mtime, default=None)
    except OSError:
        return None


def _id_of(repository: Path) -> str | None:
    kind, *parts = repository.name.split("--")
    return "/".join(parts) if kind == "models" and len(parts) == 2 else None
