"""The files of one checkpoint, wherever they are; here, in a folder or a Hub cache snapshot."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from typing import TYPE_CHECKING, Any, Protocol

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime import file_hashes
from quantui.runtime.safetensors_header import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from quantui.domain.models import Source, TensorInfo

MAX_JSON_BYTES = 256 * 1024 * 1024
"""Above any real config, index or tokenizer; a file beyond it is not read into memory."""

_SUBFOLDERS = ("additional_chat_templates",)
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LFS_ABOVE_BYTES = 10 * 1024 * 1024
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".model", ".gguf")


class CheckpointFiles(Protocol):
    """One checkpoint's files: on this disk (:class:`FolderFiles`) or still on the Hub."""

    ref: str
    source: Source
    path: str | None
    revision: str | None
    gated: bool | str | None

    @property
    def sizes(self) -> Mapping[str, int]:
        """File name -> bytes, of the files at the top and of chat template folders."""

    def read(self, name: str) -> bytes:
        """The content of a small file."""

    def header(self, name: str, *, without_data: bool = False) -> tuple[TensorInfo, ...]:
        """The tensors of a safetensors file, of which only the header need be there ``without_data``."""

    def sha256(self, name: str) -> str | None:
        """SHA-256 of a weight file when it is known or can be computed."""

    def digest(self, name: str) -> str:
        """What identifies the content of the file; comparable within :attr:`digest_kind`."""

    @property
    def digest_kind(self) -> str:
        """``sha256`` or ``hub`` (git and LFS object ids)."""

    def missing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the files are not on this disk yet."""


class FolderFiles:
    """Files in a folder. Links may lead nowhere but into the folder, or the Hub cache it is in."""

    def __init__(
        self,
        folder: Path,
        *,
        ref: str,
        source: Source = "folder",
        revision: str | None = None,
        progress: file_hashes.Progress | None = None,
        hash_weights: bool = True,
    ) -> None:
        """``hash_weights`` False: a weight file that was not hashed before is told apart by its size alone."""
        self._root = folder.resolve()
        self._allowed = (self._root, *_cache_blobs(self._root))
        self._progress = progress
        self._hash_weights = hash_weights
        self._unhashed: frozenset[str] | None = None
        self.gated: bool | str | None = None
        self.ref = ref
        self.source = source
        self.revision = revision
        self.path: str | None = str(folder.absolute())
        self._sizes = self._scan()

    @property
    def sizes(self) -> Mapping[str, int]:
        """File name -> bytes; dangling links, folders and devices are left out."""
        return self._sizes

    @property
    def digest_kind(self) -> str:
        """Folders are identified by SHA-256, snapshots by the Hub's object ids."""
        if self.source != "folder":
            return "hub"
        return "sketch" if any(map(self._is_unhashed, self._sizes)) else "sha256"

    def locate(self, name: str) -> Path:
        """The file's real path. Raises ``checkpoint.outside-folder`` when it leads out."""
        target = (self._root / name).resolve()
        if not any(target.is_relative_to(root) for root in self._allowed):
            raise QuantuiError(
                "checkpoint.outside-folder",
                f"{self.ref}: {name!r} leads out of the checkpoint's folder.",
                "A checkpoint may only hold files of its own; this may be an attack.",
                "Do not use it, or copy the file in if the link is your own.",
            )
        return target

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        if self._sizes.get(name, 0) > MAX_JSON_BYTES:
            raise bad_json(self.ref, name, f"It has {self._sizes[name]} bytes.")
        try:
            return self.locate(name).read_bytes()
        except OSError as error:
            raise unreadable(self.ref, name, error) from None

    def header(self, name: str, *, without_data: bool = False) -> tuple[TensorInfo, ...]:
        """The tensors of a safetensors file."""
        try:
            return read_header(self.locate(name), name, without_data=without_data)
        except OSError as error:
            raise unreadable(self.ref, name, error) from None

    def sha256(self, name: str) -> str | None:
        """SHA-256: of the content for folders, the LFS object id for snapshots."""
        if self._is_unhashed(name):
            return None
        if self.source == "folder":
            return self._hash(name)
        digest = self.digest(name)
        return digest if len(digest) == 64 else None

    def digest(self, name: str) -> str:
        """SHA-256 of the content, or the Hub's object id (which names the blob in its cache)."""
        if self._is_unhashed(name):
            return f"{self._sizes[name]} bytes"
        if self.source == "folder":
            return self._hash(name)
        link = self._root / name
        if link.is_symlink() and _OBJECT_ID.fullmatch(blob := link.readlink().name):
            return blob
        if name.endswith(_LFS_SUFFIXES) or self._sizes.get(name, 0) > _LFS_ABOVE_BYTES:
            return self._hash(name)
        content = self.read(name)
        return hashlib.sha1(
            b"blob %d\0" % len(content) + content, usedforsecurity=False
        ).hexdigest()

    def missing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the files are not there."""
        return tuple(name for name in names if name not in self._sizes)

    def _is_unhashed(self, name: str) -> bool:
        """Whether ``name`` is a large weight file that nobody has hashed, and that is not to be hashed now."""
        if self._hash_weights or self.source != "folder":
            return False
        if self._unhashed is None:
            large = {
                other: self.locate(other)
                for other, size in self._sizes.items()
                if other.endswith(_LFS_SUFFIXES) and size > _LFS_ABOVE_BYTES
            }
            self._unhashed = frozenset(large) - file_hashes.hashed(large)
        return name in self._unhashed

    def _hash(self, name: str) -> str:
        try:
            return file_hashes.sha256_of(self.locate(name), self._progress)
        except OSError as error:
            raise unreadable(self.ref, name, error) from None

    def _scan(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        try:
            for folder in (self._root, *(self._root / sub for sub in _SUBFOLDERS)):
                if folder != self._root and not folder.is_dir():
                    continue
                for entry in sorted(folder.iterdir()):
                    try:
                        found = entry.stat()
                    except OSError:
                        continue
                    if stat.S_ISREG(found.st_mode):
                        sizes[entry.relative_to(self._root).as_posix()] = found.st_size
        except OSError as error:
            raise unreadable(self.ref, "the folder", error) from None
        return sizes


def read_json(files: CheckpointFiles, name: str) -> dict[str, Any]:
    """A file that must hold a JSON object. Raises ``checkpoint.bad-json``."""
    raw = files.read(name)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        if raw.startswith(b"version https://git-lfs"):
            raise QuantuiError(
                "checkpoint.lfs-pointer",
                f"{files.ref}: {name} is a git-lfs pointer, not the file.",
                "The repository was cloned without its large files.",
                "Run `git lfs pull` in that folder, or give quantui the Hub id.",
            ) from None
        raise bad_json(files.ref, name, str(error)) from None
    if not isinstance(value, dict):
        raise bad_json(files.ref, name, f"It holds a JSON {type(value).__name__}, not an object.")
    return value


def read_optional_json(files: CheckpointFiles, name: str) -> dict[str, Any] | None:
    """As :func:`read_json`; None when there is no such file."""
    return read_json(files, name) if name in files.sizes else None


def bad_json(ref: str, name: str, why: str) -> QuantuiError:
    """A file that should be JSON and is not."""
    return QuantuiError(
        "checkpoint.bad-json",
        f"{ref}: {name} is not the JSON it should be.",
        why,
        "Download the file again, or repair it.",
    )


def unreadable(ref: str, name: str, error: OSError) -> QuantuiError:
    """A file that the system does not let quantui read."""
    return QuantuiError(
        "checkpoint.unreadable",
        f"{ref}: {name} cannot be read.",
        error.strerror or str(error),
        "Check that it exists and that you may read it.",
        ExitCode.NOT_FOUND,
    )


def _cache_blobs(root: Path) -> tuple[Path, ...]:
    # A snapshot's files are links into its repository's blobs, and those may be links into the
    # store that all repositories of the cache share (huggingface_hub/utils/_shared_blobs.py).
    repository = root.parent.parent
    if root.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return ()
    return (repository / "blobs", repository.parent / "blobs")
