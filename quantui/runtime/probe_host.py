"""CPU, memory and disks of this machine, as far as this process may use them."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quantui.domain.hardware import Disk, Host
from quantui.domain.terminal_text import sanitize
from quantui.runtime import paths
from quantui.runtime.cgroup import cgroup_memory

_FLAGS = (
    *("avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
"""What vLLM's CPU engine and its oneDNN kernels choose between, in ``/proc/cpuinfo``'s names."""


def read_host(root: Path) -> Host:
    """The host; ``root`` is where ``/proc`` and ``/sys`` are. Unreadable fields are None."""
    cpu_name, cpu_flags = _cpu(root)
    ram = read_ram(root)
    return Host(
        cpu_name=cpu_name,
        physical_cores=_cores(logical=False),
        logical_cores=_cores(logical=True),
        usable_cores=_usable_cores(),
        cpu_flags=cpu_flags,
        ram_total_bytes=ram.total_bytes,
        ram_available_bytes=ram.available_bytes,
        ram_limit=ram.limit,
        disks=read_disks(root),
        platform=platform.system() or None,
        machine=platform.machine() or None,
        kernel=platform.release() or None,
        python=platform.python_version(),
        glibc=_glibc(),
    )


@dataclass(frozen=True)
class Ram:
    """RAM as this process may use it, bytes; ``limit`` names the cgroup that lowers it, None when none does."""

    total_bytes: int | None
    available_bytes: int | None
    limit: str | None = None


def read_ram(root: Path) -> Ram:
    """Total and available RAM, with this process's cgroup counted; below a millisecond."""
    total, available = _ram()
    limit = cgroup_memory(root)
    kind = None
    if limit is not None and (total is None or limit.total_bytes < total):
        total, kind = limit.total_bytes, limit.kind
    if limit is not None:
        available = min(known for known in (available, limit.free_bytes) if known is not None)
    return Ram(total, available, kind)


def read_disks(root: Path) -> tuple[Disk, ...]:
    """The filesystems below the folders quantui writes to, whether or not the folders exist yet."""
    devices = _devices(root)
    return tuple(_disk(purpose, path, devices) for purpose, path in _folders())


def hub_cache() -> Path:
    """huggingface_hub's cache: ``$HF_HUB_CACHE``, ``$HF_HOME/hub`` or its default."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folders() -> tuple[tuple[str, Path], ...]:
    return (
        ("hub cache", hub_cache()),
        ("artifacts", paths.artifacts_dir()),
        ("engines", paths.engines_dir()),
        ("tmp", Path(tempfile.gettempdir())),
    )


def _disk(purpose: str, path: Path, devices: dict[tuple[int, int], str]) -> Disk:
    # A name that is not UTF-8 holds surrogates, which JSON and terminals refuse.
    shown = os.fsencode(path).decode("utf-8", "replace")
    for folder in (path, *path.parents):
        try:
            usage, status = shutil.disk_usage(folder), folder.stat()
        except OSError:
            continue
        device = devices.get((os.major(status.st_dev), os.minor(status.st_dev)))
        return Disk(purpose, shown, usage.total, usage.free, device)
    return Disk(purpose, shown)


def _devices(root: Path) -> dict[tuple[int, int], str]:
    """Mounted devices by (major, minor); proc(5), ``/proc/pid/mountinfo``."""
    found = {}
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        try:
            major, minor = left.split()[2].split(":")
            found[int(major), int(minor)] = sanitize(right.split()[1])
        except (IndexError, ValueError):
            continue
    return found


def _cpu(root: Path) -> tuple[str | None, tuple[str, ...] | None]:
    """Name and flags of the first processor; ARM calls its flags "Features" and has no name."""
    name: str | None = None
    flags: tuple[str, ...] | None = None
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        match key.strip():
            case "model name" if name is None:
                name = sanitize(value).strip() or None
            case "flags" | "Features" if flags is None:
                present = set(value.split())
                flags = tuple(flag for flag in _FLAGS if flag in present)
    return name, flags


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _cores(*, logical: bool) -> int | None:
    import psutil

    try:
        return psutil.cpu_count(logical=logical)
    except (psutil.Error, OSError):
        return None


def _usable_cores() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return None


def _ram() -> tuple[int | None, int | None]:
    import psutil

    try:
        memory = psutil.virtual_memory()
    except (psutil.Error, OSError, KeyError, ValueError):
        return None, None
    return memory.total, memory.available


def _glibc() -> str | None:
    """glibc's version, "" for another C library."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").removeprefix("glibc ")  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return "" if platform.system() == "Linux" else None
