"""GPU memory many times a second: two counters a GPU and nothing else."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.runtime.nvml import MEMORY_VARIANTS, Nvml, known, nvml_session

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True)
class GpuMemory:
    """Bytes in use on a GPU and its total, both None when NVML does not say (a lost GPU)."""

    index: int
    used_bytes: int | None
    total_bytes: int | None


class GpuMemoryReader:
    """Reads the memory of every GPU; see :func:`open_gpu_memory`. For one thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._gpus: list[tuple[int, Any, Any]] = []
        session = self._stack.enter_context(nvml_session())
        self._nvml = session if isinstance(session, Nvml) else None
        if self._nvml is not None:
            count = self._nvml.ask_number("count", ("nvmlDeviceGetCount",)) or 0
            self._gpus = [self._open(self._nvml, index) for index in range(count)]

    def read(self) -> list[GpuMemory]:
        """One entry a GPU, in NVML's order; empty without GPUs and after :meth:`close`."""
        nvml = self._nvml
        if nvml is None:
            return []
        found = []
        for index, handle, variant in self._gpus:
            info = variant and nvml.ask("memory", (variant[0], handle, variant[1]))
            if info:
                found.append(GpuMemory(index, known(info.used), known(info.total)))
            else:
                found.append(GpuMemory(index, None, None))
        return found

    def close(self) -> None:
        """Shut NVML down; may be called again."""
        self._nvml = None
        self._stack.close()

    def __enter__(self) -> GpuMemoryReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def _open(nvml: Nvml, index: int) -> tuple[int, Any, Any]:
        """The handle, and the memory call this driver has, so that a reading is one call a GPU."""
        handle = nvml.ask("handle", ("nvmlDeviceGetHandleByIndex", index))
        if handle is None:
            return index, None, None
        for variant in MEMORY_VARIANTS:
            if nvml.ask("memory", (variant[0], handle, variant[1])) is not None:
                return index, handle, variant
        return index, handle, None


def open_gpu_memory() -> GpuMemoryReader:
    """A reader for the sampler: NVML is initialised here and shut down by ``close()``.

    Without an NVIDIA driver the reader exists and reads nothing.
    """
    return GpuMemoryReader()
