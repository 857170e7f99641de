"""Find a model or an adapter by what the user wrote: a folder, or a Hub id, cached or online."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.checkpoint_files import CheckpointFiles, FolderFiles
from quantui.runtime.checkpoints import read_adapter, read_model
from quantui.runtime.training_evidence import four_bit_verdict

if TYPE_CHECKING:
    from quantui.domain.models import AdapterSpec, FourBitVerdict, ModelSpec
    from quantui.runtime.file_hashes import Progress


def resolve_model(
    ref: str,
    revision: str | None = None,
    *,
    offline: bool | None = None,
    allow_pickle: bool = False,
    progress: Progress | None = None,
    sketch: bool = False,
) -> ModelSpec:
    """What the model ``ref`` is, without reading or downloading its weights.

    ``ref`` is a folder, or a Hub id: a complete snapshot in the Hub cache is taken as it is,
    otherwise configs and tensor headers are fetched. A ``sketch`` needs no weights: config.json is
    enough, an index or headers without the data behind them are used where they are, and weight
    files are not hashed for it. ``offline`` None follows ``HF_HUB_OFFLINE``.
    ``progress`` is told when weight files of a folder are hashed for the first time. Raises
    QuantuiError ``model.*``, ``hub.*``, ``checkpoint.*``, ``safetensors.*``.
    """
    files = _open(
        ref, revision, offline=offline, progress=progress, adapter=False, hash_weights=not sketch
    )
    return read_model(files, allow_pickle=allow_pickle, sketch=sketch)


def resolve_adapter(
    ref: str,
    revision: str | None = None,
    *,
    offline: bool | None = None,
    allow_pickle: bool = False,
    four_bit: bool | None = None,
    progress: Progress | None = None,
) -> AdapterSpec:
    """What the adapter ``ref`` is, with the verdict on whether it was trained in 4 bit.

    ``four_bit`` is the user's own word: it decides, and the evidence is kept beside it. The rest is
    as in :func:`resolve_model`.
    """
    files = _open(ref, revision, offline=offline, progress=progress, adapter=True)
    spec = read_adapter(files, allow_pickle=allow_pickle)
    verdict = four_bit_verdict(files, offline=offline, override=four_bit)
    return replace(spec, four_bit=verdict)


def was_trained_in_4bit(model_id: str, revision: str | None = None) -> FourBitVerdict:
    """Was this adapter (folder or Hub id) trained on a 4-bit base? With the evidence.

    ``answer`` is None when nothing tells, or when strong signs contradict each other. No weights
    are read. Raises QuantuiError as :func:`resolve_model` when it cannot be found.
    """
    files = _open(model_id, revision, offline=None, progress=None, adapter=True)
    return four_bit_verdict(files)


def looks_like_path(ref: str) -> bool:
    """Whether the user means a folder and not a Hub id."""
    return ref.startswith(("/", "./", "../", "~")) or ref in {".", ".."} or ref.count("/") > 1


def split_revision(ref: str) -> tuple[str, str | None]:
    """``owner/name@revision`` as (id, revision); a folder, and what has no @, as it is."""
    name, at, revision = ref.partition("@")
    if not (at and name and revision) or looks_like_path(name) or _on_disk(ref)[0]:
        return ref, None
    return name, revision


def _open(
    ref: str,
    revision: str | None,
    *,
    offline: bool | None,
    progress: Progress | None,
    adapter: bool,
    hash_weights: bool = True,
) -> CheckpointFiles:
    kind, folder = _on_disk(ref)
    if kind == "folder":
        return FolderFiles(folder, ref=ref, progress=progress, hash_weights=hash_weights)
    if kind == "file":
        raise QuantuiError(
            "model.is-a-file",
            f"{ref} is a file; a folder or a Hub id is needed.",
            "A checkpoint is config.json, weights and tokenizer together.",
            f"Give the folder it is in: {folder.parent}",
        )
    if looks_like_path(ref):
        raise folder_not_found(ref, folder, adapter=adapter)
    from quantui.runtime import hub

    return hub.open_repository(ref, revision, offline=offline, progress=progress, adapter=adapter)


def _on_disk(ref: str) -> tuple[str, Path]:
    """``folder``, ``file`` or nothing, and the path; a name no file can have is nothing."""
    if not ref.strip():
        return "", Path()
    try:
        path = Path(ref).expanduser()
        if path.is_dir():
            return "folder", path
        return ("file" if path.exists() else ""), path
    except (OSError, ValueError, RuntimeError):
        return "", Path(ref.replace("\0", ""))


def folder_not_found(ref: str, folder: Path, *, adapter: bool) -> QuantuiError:
    """The error for a path that is not there, with names close to it in the same place."""
    parent = folder.absolute().parent
    near: list[str] = []
    try:
        names = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
        near = difflib.get_close_matches(folder.name, names, n=3)
        why = f"There is no {folder.name!r} in {parent}."
    except OSError:
        why = f"{parent} is not a folder that can be read."
    meant = "Did you mean " + " or ".join(str(parent / name) for name in near) + "?"
    return QuantuiError(
        "adapter.folder-not-found" if adapter else "model.folder-not-found",
        f"The folder {ref} does not exist.",
        why,
        meant if near else "Check the path; a Hub id has the form owner/name.",
        ExitCode.NOT_FOUND,
    )


def download_job(spec: ModelSpec | AdapterSpec) -> dict[str, object]:
    """The job of ``engines/workers/download_snapshot.py`` that completes ``spec``.

    Only what is missing is named, so ``expected_bytes`` is what will come over the network.
    """
    return {
        "repo_id": spec.ref,
        "revision": spec.revision,
        # The names are matched as patterns: a bracket in one must stand for itself.
        "allow_patterns": [name.replace("[", "[[]") for name in spec.missing_files],
        "ignore_patterns": None,
        "cache_dir": None,
        "expected_bytes": spec.download_bytes,
    }
