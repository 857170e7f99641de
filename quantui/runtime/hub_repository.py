"""A repository that is still on the Hub: its listing, its small files, and its tensor headers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.runtime.checkpoint_files import MAX_JSON_BYTES, bad_json
from quantui.runtime.hub import cached_snapshot, call, explained, in_cache, not_found
from quantui.runtime.safetensors_header import check_length, parse_header, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.models import Source, TensorInfo

_FIRST_READ_BYTES = 256 * 1024
"""Most headers are shorter, so that one request a shard is enough."""

_TIMEOUT_S = 30.0


class HubFiles:
    """Files of one commit. Small ones land in the Hub cache; of weights only headers are read."""

    def __init__(self, ref: str, revision: str | None, *, adapter: bool) -> None:
        from huggingface_hub import HfApi

        self.ref = ref
        self.source: Source = "hub"
        self._asked = revision
        self._api = HfApi(library_name="quantui")
        info = call(
            ref,
            revision,
            lambda: self._api.model_info(
                ref, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            ),
        )
        if not info.sha:
            raise not_found(
                "hub.bad-answer",
                f"The Hub did not say which commit {ref} is at.",
                "HF_ENDPOINT may point to something that is not a Hub.",
                "Check HF_ENDPOINT.",
            )
        self.revision: str | None = info.sha
        self._commit: str = info.sha
        self.gated: bool | str | None = info.gated
        self.tags: tuple[str, ...] = tuple(map(str, info.tags or ()))
        self._sizes: dict[str, int] = {}
        self._ids: dict[str, str] = {}
        for file in info.siblings or ():
            if not _is_safe(file.rfilename):
                continue
            self._sizes[file.rfilename] = file.size or 0
            lfs = file.lfs
            self._ids[file.rfilename] = lfs.sha256 if lfs is not None else (file.blob_id or "")
        snapshot = cached_snapshot(ref, self._commit, adapter=adapter)
        self.path: str | None = str(snapshot) if snapshot is not None else None
        self._headers: dict[str, tuple[TensorInfo, ...]] = {}

    @property
    def sizes(self) -> Mapping[str, int]:
        """File name -> bytes, by the Hub's listing."""
        return self._sizes

    @property
    def digest_kind(self) -> str:
        """The Hub's object ids, equal to those that name the blobs of its cache."""
        return "hub"

    def read(self, name: str) -> bytes:
        """Download a small file into the Hub cache and read it."""
        if self._sizes.get(name, 0) > MAX_JSON_BYTES:
            raise bad_json(self.ref, name, f"It has {self._sizes[name]} bytes.")
        with explained(self.ref, self._asked):
            return self._fetch(name).read_bytes()

    def header(self, name: str, *, without_data: bool = False) -> tuple[TensorInfo, ...]:
        """The tensors of a safetensors file; all shards are asked for at once. The Hub has the data as well."""
        if name not in self._headers:
            self._read_headers(name)
        return self._headers[name]

    def sha256(self, name: str) -> str | None:
        """The LFS object id, which is the SHA-256 of the content."""
        digest = self._ids.get(name, "")
        return digest if len(digest) == 64 else None

    def digest(self, name: str) -> str:
        """The git or LFS object id; the commit stands in where the Hub names none."""
        return self._ids.get(name) or f"{self._commit}:{name}"

    def missing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the files are not in the Hub cache."""
        return tuple(name for name in names if in_cache(self.ref, name, self._commit) is None)

    def _fetch(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        # Asking by branch makes huggingface_hub note which commit the branch is at, so that the
        # same name is found offline later. A branch that has moved since is asked for by commit.
        if self._commit != self._asked and name in {"config.json", "adapter_config.json"}:
            path = Path(hf_hub_download(self.ref, name, revision=self._asked))
            if path.parent.name == self._commit:
                return path
        return Path(hf_hub_download(self.ref, name, revision=self._commit))

    def _read_headers(self, name: str) -> None:
        shards = [name]
        if "-of-" in name:
            suffix = name.rpartition("-of-")[2]
            shards = [n for n in self._sizes if n.endswith(f"-of-{suffix}") and "/" not in n]
        with explained(self.ref, self._asked), ThreadPoolExecutor(min(8, len(shards))) as pool:
            self._headers.update(zip(shards, pool.map(self._header, shards), strict=True))

    def _header(self, name: str) -> tuple[TensorInfo, ...]:
        local = in_cache(self.ref, name, self._commit)
        if local is not None:
            return read_header(local, name)
        size = self._sizes[name]
        first = self._range(name, 0, min(size, _FIRST_READ_BYTES))
        length = int.from_bytes(first[:8], "little")
        check_length(length, size, name)
        raw = first[8 : 8 + length]
        if len(raw) < length:
            raw += self._range(name, 8 + len(raw), 8 + length)
        return parse_header(raw, size, name)

    def _range(self, name: str, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a file. Stops reading there even when the server sends it all."""
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
        )

        if end <= begin:
            return b""
        url = hf_hub_url(self.ref, name, revision=self._commit)
        headers = {
            **build_hf_headers(library_name="quantui"),
            "Range": f"bytes={begin}-{end - 1}",
            "Accept-Encoding": "identity",
        }
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            skip = begin if response.status_code == 200 else 0
            data = bytearray()
            for chunk in response.iter_bytes(64 * 1024):
                data += chunk
                if len(data) >= skip + end - begin:
                    break
        return bytes(data[skip : skip + end - begin])


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)
