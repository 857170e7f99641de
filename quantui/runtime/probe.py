"""The hardware probe: everything quantui knows about the machine it runs on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from quantui.domain.hardware import Gpu, HardwareReport, Host, Problem
from quantui.domain.hardware_checks import check_gpu, check_host
from quantui.domain.terminal_text import sanitize
from quantui.runtime.gpu_memory import GpuMemory, GpuMemoryReader, open_gpu_memory
from quantui.runtime.probe_host import read_host
from quantui.runtime.probe_nvml import read_nvml

__all__ = ["GpuMemory", "GpuMemoryReader", "open_gpu_memory", "probe_hardware"]


def probe_hardware() -> HardwareReport:
    """Read NVML, the CPU, RAM and disks. Whatever cannot be read is None; never raises for it.

    ``CUDA_VISIBLE_DEVICES`` is reported and hides nothing: NVML does not know it.
    """
    root = Path("/")
    reading = read_nvml(root)
    host = read_host(root)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = tuple(_checked(_sharing_ram(gpu, host)) for gpu in reading.gpus)
    problems = (*reading.problems, *check_host(host), *_hidden(visible, gpus))
    return HardwareReport(
        gpus=gpus,
        host=host,
        driver_version=reading.driver_version,
        cuda_version=reading.cuda_version,
        cuda_visible_devices=None if visible is None else sanitize(visible),
        problems=problems,
    )


def _checked(gpu: Gpu) -> Gpu:
    return replace(gpu, problems=(*gpu.problems, *check_gpu(gpu)))


def _sharing_ram(gpu: Gpu, host: Host) -> Gpu:
    """A GPU without memory of its own gets the host's RAM: what its CUDA programs can allocate."""
    if all(problem.code != "gpu.memory-not-own" for problem in gpu.problems):
        return gpu
    total, free = host.ram_total_bytes, host.ram_available_bytes
    used = None if total is None or free is None else total - free
    return replace(gpu, total_bytes=total, free_bytes=free, used_bytes=used, unified_memory=True)


def _hidden(visible: str | None, gpus: tuple[Gpu, ...]) -> tuple[Problem, ...]:
    # CUDA stops reading the list at the first entry that names no device: "" and "-1" hide all.
    if visible is None or not gpus or visible.strip() not in ("", "-1"):
        return ()
    return (
        Problem(
            code="cuda.all-hidden",
            what="CUDA_VISIBLE_DEVICES hides every GPU from vLLM.",
            why=f"It is set to {sanitize(visible)!r}.",
            fix="unset CUDA_VISIBLE_DEVICES, or set it to the GPUs to use: CUDA_VISIBLE_DEVICES=0",
        ),
    )
