"""The GPUs of this machine as NVML tells them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quantui.domain.hardware import Gpu, GpuProcess, MigSlice, Problem
from quantui.runtime.nvml import MEMORY_VARIANTS, Failure, Nvml, known, nvml_session
from quantui.runtime.nvml_problems import gpu_problems, no_nvml

if TYPE_CHECKING:
    from pathlib import Path

_PROFILE = re.compile(r"\bMIG (\S+)$")


@dataclass(frozen=True)
class NvmlReading:
    """What one NVML session gave."""

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None
    problems: tuple[Problem, ...] = ()


def read_nvml(root: Path) -> NvmlReading:
    """Every GPU with what NVML says of it, in one session. Never raises for what NVML does.

    ``root`` is where ``/sys``, ``/dev`` and ``/proc`` are, asked for traces of a GPU when NVML is
    missing.
    """
    with nvml_session() as session:
        if isinstance(session, Failure):
            return NvmlReading(problems=(no_nvml(session, root),))
        count = session.ask_number("count", ("nvmlDeviceGetCount",))
        problems: tuple[Problem, ...] = ()
        if not count:
            reason = session.failures.get("count")
            problems = (
                Problem(
                    code="nvml.no-gpu",
                    what="The NVIDIA driver is loaded, and no GPU is visible.",
                    why=reason.text if reason else "NVML counts 0 GPUs.",
                    fix="Run nvidia-smi; in a container, start it with --gpus all.",
                ),
            )
        return NvmlReading(
            gpus=tuple(_gpu(session.for_gpu(), index) for index in range(count or 0)),
            driver_version=session.ask_text("driver", ("nvmlSystemGetDriverVersion",)),
            cuda_version=_cuda_version(session),
            problems=problems,
        )


def _cuda_version(nvml: Nvml) -> str | None:
    number = nvml.ask_number(
        "cuda", ("nvmlSystemGetCudaDriverVersion_v2",), ("nvmlSystemGetCudaDriverVersion",)
    )
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"


def _gpu(nvml: Nvml, index: int) -> Gpu:
    handle = nvml.ask("handle", ("nvmlDeviceGetHandleByIndex", index))
    if handle is None:
        return Gpu(index=index, problems=gpu_problems(nvml, Gpu(index=index)))
    memory = _memory(nvml, "memory", handle)
    mig_enabled, mig = _mig(nvml, handle)
    power = nvml.ask_number("power", ("nvmlDeviceGetPowerUsage", handle))
    utilization = nvml.ask("utilization", ("nvmlDeviceGetUtilizationRates", handle))
    gpu = Gpu(
        index=index,
        uuid=nvml.ask_text("uuid", ("nvmlDeviceGetUUID", handle)),
        name=nvml.ask_text("name", ("nvmlDeviceGetName", handle)),
        total_bytes=memory.total,
        used_bytes=memory.used,
        free_bytes=memory.free,
        reserved_bytes=memory.reserved,
        compute_capability=nvml.ask("capability", ("nvmlDeviceGetCudaComputeCapability", handle)),
        temperature_c=nvml.ask_number(
            "temperature",
            ("nvmlDeviceGetTemperatureV", handle, nvml.binding.NVML_TEMPERATURE_GPU),
            ("nvmlDeviceGetTemperature", handle, nvml.binding.NVML_TEMPERATURE_GPU),
        ),
        power_w=None if power is None else power / 1000,  # NVML says milliwatts
        utilization_percent=None if utilization is None else known(int(utilization.gpu)),
        processes=_processes(nvml, handle),
        mig_enabled=mig_enabled,
        mig=mig,
    )
    return replace(gpu, problems=gpu_problems(nvml, gpu))


@dataclass(frozen=True)
class _Memory:
    total: int | None = None
    used: int | None = None
    free: int | None = None
    reserved: int | None = None


def _memory(nvml: Nvml, subject: str, handle: Any) -> _Memory:  # noqa: ANN401 - a ctypes handle
    info = nvml.ask(subject, *((name, handle, version) for name, version in MEMORY_VARIANTS))
    # A GPU that shares the host's RAM has none of its own: some drivers say so with a total of 0.
    if info is None or not info.total:
        return _Memory()
    reserved = getattr(info, "reserved", None)
    return _Memory(known(info.total), known(info.used), known(info.free), known(reserved))


def _processes(nvml: Nvml, handle: Any) -> tuple[GpuProcess, ...] | None:  # noqa: ANN401
    """Compute and graphics processes, each once; None when the compute ones cannot be listed."""
    compute = _listed(nvml, "processes", "nvmlDeviceGetComputeRunningProcesses", handle)
    if compute is None:
        return None
    graphics = _listed(nvml, "graphics", "nvmlDeviceGetGraphicsRunningProcesses", handle) or []
    found: dict[tuple[int, int | None], GpuProcess] = {}
    for entry in (*compute, *graphics):
        instance = known(int(entry.gpuInstanceId))
        # nvidia-ml-py gives None for "not available" (containers, WSL).
        used = None if entry.usedGpuMemory is None else known(int(entry.usedGpuMemory))
        pid = int(entry.pid)
        found.setdefault((pid, instance), GpuProcess(pid, _process_name(nvml, pid), used, instance))
    return tuple(sorted(found.values(), key=lambda one: (-(one.used_bytes or 0), one.pid or 0)))


def _listed(nvml: Nvml, subject: str, function: str, handle: Any) -> Any:  # noqa: ANN401
    """``function`` in the newest version the driver has.

    The binding asks for the number of processes first, so one that starts in between makes the list
    too short (NVML_ERROR_INSUFFICIENT_SIZE): asking again settles it.
    """
    for _ in range(2):
        answer = nvml.ask(subject, (f"{function}_v3", handle), (f"{function}_v2", handle))
        reason = nvml.failures.get(subject)
        if reason is None or reason.code != nvml.code("INSUFFICIENT_SIZE"):
            break
    return answer


def _process_name(nvml: Nvml, pid: int) -> str | None:
    """NVML's name first: in a container ``/proc`` may know another process by that PID."""
    name = nvml.for_gpu().ask_text("name", ("nvmlSystemGetProcessName", pid))
    if name is not None:
        return name
    import psutil

    from quantui.domain.terminal_text import sanitize

    try:
        return sanitize(psutil.Process(pid).name()).strip() or None
    except (psutil.Error, OSError):
        return None


def _mig(nvml: Nvml, handle: Any) -> tuple[bool | None, tuple[MigSlice, ...] | None]:  # noqa: ANN401
    """Whether MIG is on, and the MIG devices this process may see."""
    mode = nvml.ask("mig", ("nvmlDeviceGetMigMode", handle))
    if mode is None:
        # GPUs without MIG and drivers older than it both answer so.
        if nvml.failures["mig"].code in (
            nvml.code("NOT_SUPPORTED"),
            nvml.code("FUNCTION_NOT_FOUND"),
        ):
            del nvml.failures["mig"]
            return False, ()
        return None, None
    if mode[0] != 1:
        return False, ()
    most = nvml.ask_number("mig", ("nvmlDeviceGetMaxMigDeviceCount", handle))
    if most is None:
        return True, None
    slices = []
    for position in range(most):
        part = nvml.ask("mig", ("nvmlDeviceGetMigDeviceHandleByIndex", handle, position))
        if part is not None:
            slices.append(_slice(nvml.for_gpu(), part))
        elif nvml.failures["mig"].code != nvml.code("NOT_FOUND"):
            return True, None
    nvml.failures.pop("mig", None)
    return True, tuple(slices)


def _slice(nvml: Nvml, handle: Any) -> MigSlice:  # noqa: ANN401
    name = nvml.ask_text("name", ("nvmlDeviceGetName", handle))
    # NVML has no call for the profile; the name ends with it: "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
    profile = _PROFILE.search(name or "")
    memory = _memory(nvml, "memory", handle)
    return MigSlice(
        uuid=nvml.ask_text("uuid", ("nvmlDeviceGetUUID", handle)),
        name=name,
        profile=profile[1] if profile else None,
        total_bytes=memory.total,
        used_bytes=memory.used,
        free_bytes=memory.free,
        gpu_instance_id=nvml.ask_number("gi", ("nvmlDeviceGetGpuInstanceId", handle)),
        compute_instance_id=nvml.ask_number("ci", ("nvmlDeviceGetComputeInstanceId", handle)),
    )
