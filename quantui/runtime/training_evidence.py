"""Gather what may tell how an adapter was trained: files beside it, its base's config, its card."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import QuantuiError
from quantui.domain.four_bit import TrainingMaterial, judge
from quantui.domain.weight_choice import is_training_file
from quantui.runtime import hub
from quantui.runtime.checkpoint_files import CheckpointFiles, FolderFiles, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.models import FourBitVerdict

MAX_TEXT_BYTES = 2 * 1024 * 1024
"""Configs and cards are far smaller; what is larger is a log or a data set."""

_TRAINER_CHECKPOINT = re.compile(r"checkpoint-\d+")


def four_bit_verdict(
    files: CheckpointFiles, *, offline: bool | None = None, override: bool | None = None
) -> FourBitVerdict:
    """Was the adapter (or merged model) in ``files`` trained in 4 bit?

    Local files are read first; the base's config and the card are asked of the Hub only when they
    tell nothing, and a Hub that cannot be reached leaves the answer unknown.
    """
    material = _local_material(files)
    verdict = judge(material, override)
    if verdict.answer is not None or override is not None:
        return verdict
    online = not hub.is_offline(offline)
    base = material.adapter_config.get("base_model_name_or_path")
    if isinstance(base, str):
        revision = material.adapter_config.get("revision")
        config = _base_config(base, revision if isinstance(revision, str) else None, online=online)
        material = replace(material, base_config=config)
        verdict = judge(material, override)
    if verdict.answer is None and online and files.source == "hub-cache":
        verdict = judge(_with_card(material, files), override)
    return verdict


def _local_material(files: CheckpointFiles) -> TrainingMaterial:
    texts, binaries = _training_files(files)
    if files.source == "folder" and files.path is not None:
        folder = Path(files.path).resolve()
        if _TRAINER_CHECKPOINT.fullmatch(folder.name):
            # Trainers keep the configuration one level above checkpoint-N.
            try:
                above = FolderFiles(folder.parent, ref=files.ref)
                more_texts, more_binaries = _training_files(above)
                texts = {**{f"../{name}": text for name, text in more_texts.items()}, **texts}
                binaries = {**more_binaries, **binaries}
            except QuantuiError:
                pass
    config: dict[str, Any] = {}
    for name in ("adapter_config.json", "config.json"):
        if name in files.sizes:
            config = read_json(files, name)
            break
    name = Path(files.ref).name if files.source == "folder" else files.ref
    tags = getattr(files, "tags", ())
    return TrainingMaterial(
        name=name, adapter_config=config, texts=texts, binaries=binaries, tags=tags
    )


def _training_files(files: CheckpointFiles) -> tuple[dict[str, str], dict[str, bytes]]:
    texts: dict[str, str] = {}
    binaries: dict[str, bytes] = {}
    for name, size in files.sizes.items():
        if not is_training_file(name) or size > MAX_TEXT_BYTES:
            continue
        content = files.read(name)
        if name.endswith(".bin"):
            binaries[name] = content
        else:
            texts[name] = content.decode("utf-8", "replace")
    return texts, binaries


def _base_config(base: str, revision: str | None, *, online: bool) -> Mapping[str, Any] | None:
    try:
        if "\0" not in base and Path(base).expanduser().is_dir():
            return read_json(FolderFiles(Path(base).expanduser(), ref=base), "config.json")
        hub.check_repo_id(base)
        snapshot = hub.cached_snapshot(base, revision, adapter=False)
        if snapshot is not None:
            cached = FolderFiles(snapshot, ref=base, source="hub-cache", revision=snapshot.name)
            return read_json(cached, "config.json")
        if online:
            return hub.fetch_json(base, "config.json", revision)
    except (QuantuiError, OSError):
        # The base may be private, gone, or a path on the trainer's machine: then it says nothing.
        return None
    return None


def _with_card(material: TrainingMaterial, files: CheckpointFiles) -> TrainingMaterial:
    from quantui.runtime.hub_repository import HubFiles

    try:
        remote = HubFiles(files.ref, files.revision, adapter=True)
        texts, binaries = _training_files(remote)
    except QuantuiError:
        return material
    return replace(
        material,
        texts={**texts, **material.texts},
        binaries={**binaries, **material.binaries},
        tags=remote.tags,
    )
