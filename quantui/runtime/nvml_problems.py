"""What NVML's failures mean for a person: what does not work, why, and the fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quantui.domain.hardware import Gpu, Problem
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.runtime.nvml import Failure, Nvml

_NVIDIA = "0x10de"

_SHARES_RAM = re.compile(r"\b(GB10|N1X|Orin|Thor|Xavier|Tegra)\b")
"""Names of GPUs that have no memory of their own. Only for these is RAM taken instead: that NVML
does not support the question is no proof."""

# NVML's return values, nvml.h "nvmlReturn_enum".
_NOT_SUPPORTED = 3
_NO_PERMISSION = 4
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_GPU_IS_LOST = 15
_RESET_REQUIRED = 16
_VERSION_MISMATCH = 18

_CONTAINER = "In a container, start it with --gpus all"
_INIT = {
    _DRIVER_NOT_LOADED: (
        "nvml.driver-not-loaded",
        "The NVIDIA driver is installed but not loaded.",
        f"Load it (sudo modprobe nvidia) or reinstall it for this kernel. {_CONTAINER}.",
    ),
    _VERSION_MISMATCH: (
        "nvml.version-mismatch",
        "The NVIDIA library and the loaded kernel module have different versions.",
        "Restart the machine: the driver was updated while the old module was loaded.",
    ),
    _NO_PERMISSION: (
        "nvml.no-permission",
        "This user may not talk to the NVIDIA driver.",
        f"Check the permissions of /dev/nvidiactl and /dev/nvidia*. {_CONTAINER}.",
    ),
}


def no_nvml(failure: Failure, root: Path) -> Problem:
    """Why NVML could not be started; only a note without a trace of a GPU below ``root``."""
    if failure.code == _LIBRARY_NOT_FOUND:
        trace = _trace_of_gpu(root)
        if trace is None:
            return Problem(
                code="nvml.no-driver",
                what="No NVIDIA GPU and no NVIDIA driver were found.",
                why="libnvidia-ml.so.1 is not installed and no NVIDIA device is on the PCI bus.",
                fix="None is needed: vLLM's CPU engine will be used.",
                severity="note",
            )
        return Problem(
            code="nvml.library-not-found",
            what="This machine has an NVIDIA GPU, and the driver's library cannot be loaded.",
            why=f"{trace}; libnvidia-ml.so.1 is not where the loader looks.",
            fix=f"Install the NVIDIA driver. {_CONTAINER} and NVIDIA_DRIVER_CAPABILITIES that "
            "include utility. Under WSL, add /usr/lib/wsl/lib to LD_LIBRARY_PATH.",
        )
    code, what, fix = _INIT.get(
        failure.code or 0,
        ("nvml.failed", "NVML, which reads NVIDIA GPUs, could not be started.", "Run nvidia-smi."),
    )
    return Problem(code=code, what=what, why=f"NVML says: {failure.text}.", fix=fix)


def _trace_of_gpu(root: Path) -> str | None:
    """What shows that an NVIDIA GPU is there although NVML is not; None when nothing does."""
    for device in sorted(root.glob("sys/bus/pci/devices/*")):
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if vendor == _NVIDIA and kind.startswith("0x03"):  # PCI class 03: display controllers
            return f"PCI device {device.name} is an NVIDIA display controller"
    for path in (
        "dev/nvidiactl",
        "proc/driver/nvidia/version",
        "usr/lib/wsl/lib/libnvidia-ml.so.1",
    ):
        if (root / path).exists():
            return f"/{path} exists"
    return None


def gpu_problems(nvml: Nvml, gpu: Gpu) -> tuple[Problem, ...]:
    """What is wrong with one GPU, from the failures of asking about it."""
    failures, index = nvml.failures, gpu.index
    for failure in failures.values():
        if failure.code in (_GPU_IS_LOST, _RESET_REQUIRED):
            return (_lost(index, failure),)
    found = []
    if "handle" in failures:
        found.append(
            Problem(
                code="gpu.unreadable",
                what=f"GPU {index} is there and cannot be read.",
                why=f"NVML says: {failures['handle'].text}.",
                fix=f"Run nvidia-smi -i {index}. {_CONTAINER}.",
            )
        )
    elif gpu.total_bytes is None:
        found.append(_no_memory(gpu, failures.get("memory")))
    if "capability" in failures:
        found.append(
            Problem(
                code="gpu.capability-unknown",
                what=f"The compute capability of GPU {index} is unknown.",
                why=f"NVML says: {failures['capability'].text}.",
                fix="Methods that need a certain one cannot be checked before loading.",
            )
        )
    if "mig" in failures:
        found.append(
            Problem(
                code="gpu.mig-unknown",
                what=f"The MIG devices of GPU {index} cannot be listed.",
                why=f"NVML says: {failures['mig'].text}.",
                fix="Run nvidia-smi -L, and name a MIG device's UUID in CUDA_VISIBLE_DEVICES.",
            )
        )
    found.extend(_users(gpu, failures.get("processes")))
    return tuple(found)


def _lost(index: int, failure: Failure) -> Problem:
    return Problem(
        code="gpu.lost",
        what=f"GPU {index} stopped answering.",
        why=f"NVML says: {failure.text}.",
        fix="Look for Xid in the kernel's log (dmesg) and restart the machine.",
    )


def _no_memory(gpu: Gpu, failure: Failure | None) -> Problem:
    silent = failure is None or failure.code == _NOT_SUPPORTED
    if silent and _SHARES_RAM.search(gpu.name or ""):
        return Problem(
            code="gpu.memory-not-own",
            what=f"NVML reports no memory for GPU {gpu.index}.",
            why="It has none of its own: it shares the machine's RAM, which is shown instead.",
            fix="None is needed: leave RAM free for everything else.",
            severity="note",
        )
    hidden = bool(gpu.mig)
    return Problem(
        code="gpu.memory-unknown",
        what=f"The memory of GPU {gpu.index} cannot be read.",
        why=f"NVML says: {failure.text if failure else '0 bytes'}.",
        fix="Go by its MIG devices: only they can be used."
        if hidden
        else f"Run nvidia-smi -i {gpu.index}; what fits cannot be computed without it.",
        severity="note" if hidden else "warning",
    )


def _users(gpu: Gpu, failure: Failure | None) -> list[Problem]:
    """Whether the list of processes can be believed."""
    if failure is not None:
        return [
            Problem(
                code="gpu.processes-unknown",
                what=f"Who else uses GPU {gpu.index} cannot be seen.",
                why=f"NVML says: {failure.text}.",
                fix="Run nvidia-smi as the user who may, or outside the container.",
                severity="note",
            )
        ]
    # Without the reserved part, used memory includes it, and a free GPU would look taken.
    used = None if gpu.reserved_bytes is None else gpu.used_bytes
    if gpu.processes or gpu.processes is None or used is None or used < GIB:
        return []
    return [
        Problem(
            code="gpu.hidden-users",
            what=f"{used / GIB:.1f} GiB of GPU {gpu.index} are used by unseen processes.",
            why="In a container NVML shows only processes of that container.",
            fix="Run nvidia-smi on the host to see them.",
            severity="note",
        )
    ]
