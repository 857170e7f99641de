"""Repositories on the Hub and in its cache, through huggingface_hub alone.

huggingface_hub reads its environment (``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_CACHE``,
``HF_ENDPOINT``, ``HF_HUB_OFFLINE``) when it is first imported, which happens here and not before.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quantui.domain.checkpoint_facts import has_tokenizer
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hub_failures import explain_hub_failure
from quantui.domain.hub_failures import offline as offline_error
from quantui.domain.weight_choice import (
    choose_adapter_weights,
    choose_model_weights,
    content_files,
)
from quantui.runtime.checkpoint_files import CheckpointFiles, FolderFiles, bad_json, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.runtime.file_hashes import Progress

_T = TypeVar("_T")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")


def open_repository(
    ref: str,
    revision: str | None = None,
    *,
    offline: bool | None = None,
    progress: Progress | None = None,
    adapter: bool = False,
) -> CheckpointFiles:
    """The files of Hub repository ``ref``: its snapshot in the cache when whole, else the Hub's.

    A snapshot found in the cache is not checked for a newer version: what was downloaded is what is
    used, until a ``revision`` names another. Raises QuantuiError ``model.*`` and ``hub.*``.
    """
    check_repo_id(ref)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise QuantuiError(
            "model.bad-revision",
            f"{revision[:100]!r} is not a revision.",
            "A revision is a branch, a tag or a commit of 40 hex digits.",
            "Correct --revision.",
        )
    found = cached_snapshot(ref, revision, adapter=adapter)
    files: FolderFiles | None = None
    lacks: tuple[str, ...] = ()
    if found is not None:
        files = FolderFiles(
            found, ref=ref, source="hub-cache", revision=found.name, progress=progress
        )
        lacks = lacking(files, adapter=adapter)
    doubtful = not adapter and files is not None and not has_tokenizer(files.sizes)
    if files is not None and not lacks and (not doubtful or is_offline(offline)):
        return files
    if is_offline(offline):
        raise offline_error(ref, lacks)
    from quantui.runtime.hub_repository import HubFiles

    try:
        return HubFiles(ref, revision, adapter=adapter)
    except QuantuiError:
        # The weights are whole: that the tokenizer is missing is shown, and may well be meant.
        if files is not None and not lacks:
            return files
        raise


def is_offline(offline: bool | None) -> bool:
    """The caller's word, else what ``HF_HUB_OFFLINE`` says."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) if offline is None else offline


def check_repo_id(ref: str) -> None:
    """Refuse what cannot be a Hub id, by huggingface_hub's own rule, before any request."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(ref)
    except HFValidationError:
        raise QuantuiError(
            "model.bad-name",
            f"{ref[:120]!r} is neither a folder here nor a Hub id.",
            "A Hub id is owner/name, of letters, digits, '-', '_' and '.'.",
            "Check the spelling; write ./name for a folder.",
        ) from None


def cached_snapshot(ref: str, revision: str | None, *, adapter: bool) -> Path | None:
    """The folder of ``ref`` at ``revision`` in the Hub cache, whole or not, named by commit."""
    from huggingface_hub import try_to_load_from_cache

    names = ("adapter_config.json", "config.json") if adapter else ("config.json",)
    for name in (*names, "adapter_config.json"):
        try:
            found = try_to_load_from_cache(ref, name, revision=revision)
        except OSError:
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def in_cache(ref: str, name: str, commit: str) -> Path | None:
    """The file ``name`` of ``ref`` at ``commit`` in the Hub cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(ref, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def fetch_json(ref: str, name: str, revision: str | None) -> dict[str, Any]:
    """A small JSON object of a repository, downloaded into the Hub cache."""
    from huggingface_hub import hf_hub_download

    with explained(ref, revision):
        value = json.loads(Path(hf_hub_download(ref, name, revision=revision)).read_bytes())
    if not isinstance(value, dict):
        raise bad_json(ref, name, "It does not hold a JSON object.")
    return value


@contextmanager
def explained(ref: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into a QuantuiError; keep its bars and warnings quiet."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    level, shown = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if shown:
        disable_progress_bars()
    try:
        yield
    except QuantuiError:
        raise
    except Exception as error:  # noqa: BLE001 - the HTTP library's classes differ by version
        failure = explain_hub_failure(
            error,
            ref=ref,
            revision=revision,
            endpoint=constants.ENDPOINT,
            has_token=bool(get_token()),
        )
        near = _near_cached(ref) if failure.code.endswith(("not-found", "missing")) else []
        if near:
            failure = replace(failure, detail=(f"In the Hub cache: {', '.join(near)}",))
        raise failure from None
    finally:
        logger.setLevel(level)
        if shown:
            enable_progress_bars()


def call(ref: str, revision: str | None, function: Callable[[], _T]) -> _T:
    """Run one Hub call under :func:`explained`."""
    with explained(ref, revision):
        return function()


def lacking(files: FolderFiles, *, adapter: bool, listed: bool = True) -> tuple[str, ...]:
    """What a snapshot still needs: by the repository's listing if it is kept, else by its index.

    ``listed`` False asks the index alone: a folder has no listing, and a quick look need not read it.
    """
    choose = choose_adapter_weights if adapter else choose_model_weights
    listing = _listing(files.ref, files.revision) if listed else None
    names = listing if listing is not None else tuple(files.sizes)
    choice = choose(names)
    weights: tuple[str, ...] = choice.names
    if choice.index is not None:
        if choice.index not in files.sizes:
            return (choice.index,)
        weight_map = read_json(files, choice.index).get("weight_map")
        shards = weight_map.values() if isinstance(weight_map, dict) else ()
        weights = tuple(sorted({name for name in shards if isinstance(name, str)}))
    if not weights:
        return ("the weights",) if choice.kind == "none" else ()
    needed = content_files(names, weights) if listing is not None else weights
    return tuple(name for name in needed if name not in files.sizes)


def _listing(ref: str, commit: str | None) -> tuple[str, ...] | None:
    # huggingface_hub before 2.0 does not keep the listing of a repository.
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return None
    try:
        return tuple(file.path for file in get_cached_repo_tree(ref, revision=commit))
    except (CachedRepoTreeNotFoundError, OSError, ValueError, AttributeError):
        return None


def _near_cached(ref: str) -> list[str]:
    from huggingface_hub import constants

    try:
        folders = [entry.name for entry in Path(constants.HF_HUB_CACHE).iterdir()]
    except OSError:
        return []
    names = [name.removeprefix("models--").replace("--", "/") for name in folders]
    known = [name for name in names if name != ref]
    return difflib.get_close_matches(ref, known, n=3, cutoff=0.75)


def not_found(code: str, what: str, why: str, fix: str) -> QuantuiError:
    """An error whose exit code is 5."""
    return QuantuiError(code, what, why, fix, ExitCode.NOT_FOUND)
