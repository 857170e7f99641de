"""What a machine is: GPUs, CPU, memory and disks. Any field may be None, which means unknown.

Sizes are bytes. The JSON form of :class:`HardwareReport` is also how a machine that is not this
one is described (``--hardware FILE``); its least form is::

    {"gpus": [{"name": "...", "total_bytes": 1, "free_bytes": 1, "compute_capability": "8.0"}],
     "ram_bytes": 1, "disk_free_bytes": 1}

Names of GPUs and processes come from outside: faces sanitize them before printing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

from quantui.domain.hardware_fields import Fields

ANY_PURPOSE = "any"
"""Purpose of the one disk of a least machine description: it stands for every folder."""

_ELSEWHERE = ("engines", "caches", "quantui_version")
"""Keys that ``quantui doctor --json`` puts beside the report: its output can be read back."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, or could not be found out, and what to do about it.

    ``code`` is stable and dotted. ``severity``: "note" (needs no action), "warning" (something
    will not work, or is unknown and matters), "error" (nothing can work).
    """

    code: str
    what: str
    why: str = ""
    fix: str = ""
    severity: str = "warning"


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds GPU memory. ``used_bytes`` is unknown in containers and under WSL."""

    pid: int | None = None
    name: str | None = None
    used_bytes: int | None = None
    gpu_instance_id: int | None = None


@dataclass(frozen=True)
class MigSlice:
    """A MIG device: a part of a GPU that CUDA programs address by ``uuid``; profile "1g.10gb"."""

    uuid: str | None = None
    name: str | None = None
    profile: str | None = None
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None


@dataclass(frozen=True)
class Gpu:
    """One physical GPU, by NVML's index (the order of ``nvidia-smi``, by PCI address).

    ``reserved_bytes`` is what driver and firmware keep; ``total_bytes`` includes it, ``used_bytes``
    does not (nvmlMemory_v2_t). ``unified_memory``: the sizes are the host's RAM, which the GPU
    shares. ``processes`` None: they could not be listed; empty: none is visible. ``mig`` None:
    unknown; empty with ``mig_enabled``: MIG is on and no MIG device is visible.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    reserved_bytes: int | None = None
    unified_memory: bool | None = None
    compute_capability: tuple[int, int] | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    utilization_percent: float | None = None
    processes: tuple[GpuProcess, ...] | None = None
    mig_enabled: bool | None = None
    mig: tuple[MigSlice, ...] | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Disk:
    """The filesystem below a folder quantui writes to.

    ``purpose`` is "hub cache", "artifacts", "engines", "tmp" or :data:`ANY_PURPOSE`.
    ``free_bytes`` is what this user may still write.
    """

    purpose: str
    path: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Host:
    """The machine around the GPUs. RAM is what this process may use: a cgroup's limit counts.

    ``usable_cores`` is the CPU affinity; ``ram_limit`` says what lowered the RAM ("cgroup v2"),
    None when nothing did. ``cpu_flags`` holds only instruction sets that matter to vLLM on a CPU.
    ``glibc`` is "" where the C library is another one.
    """

    cpu_name: str | None = None
    physical_cores: int | None = None
    logical_cores: int | None = None
    usable_cores: int | None = None
    cpu_flags: tuple[str, ...] | None = None
    ram_total_bytes: int | None = None
    ram_available_bytes: int | None = None
    ram_limit: str | None = None
    disks: tuple[Disk, ...] = ()
    platform: str | None = None
    machine: str | None = None
    kernel: str | None = None
    python: str | None = None
    glibc: str | None = None

    def disk(self, purpose: str) -> Disk | None:
        """The disk for ``purpose``, or the one that stands for all of them."""
        for wanted in (purpose, ANY_PURPOSE):
            for disk in self.disks:
                if disk.purpose == wanted:
                    return disk
        return None


@dataclass(frozen=True)
class HardwareReport:
    """What the probe found, or a description of a machine that is not this one (``simulated``)."""

    gpus: tuple[Gpu, ...] = ()
    host: Host = Host()
    driver_version: str | None = None
    cuda_version: str | None = None
    """The newest CUDA the driver supports, "12.8"; not a toolkit that is installed."""
    cuda_visible_devices: str | None = None
    """The variable as it is set, None when it is not. It limits CUDA programs, not this report."""
    problems: tuple[Problem, ...] = ()
    simulated: bool = False

    def all_problems(self) -> tuple[Problem, ...]:
        """The machine's problems, then those of each GPU."""
        return (*self.problems, *(problem for gpu in self.gpus for problem in gpu.problems))

    def fingerprint(self) -> str:
        """GPU names, sizes, capabilities and driver: how a profile notices a different machine.

        It is readable, so that a difference can be shown, and independent of the order of the GPUs.
        "no GPU" without any; an unknown part is "?".
        """
        if not self.gpus:
            return "no GPU"
        counted = Counter(_fingerprint_of(gpu) for gpu in self.gpus)
        cards = ", ".join(f"{count}x {card}" for card, count in sorted(counted.items()))
        return f"{cards}; driver {self.driver_version or '?'}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; :meth:`from_dict` gives an equal report back."""
        disk = self.host.disk("artifacts")
        document: dict[str, Any] = _plain(asdict(self))
        for gpu in document["gpus"]:
            capability = gpu["compute_capability"]
            gpu["compute_capability"] = capability and f"{capability[0]}.{capability[1]}"
        document["ram_bytes"] = self.host.ram_total_bytes
        document["disk_free_bytes"] = disk.free_bytes if disk else None
        return document

    @classmethod
    def from_dict(cls, data: object) -> HardwareReport:
        """Read :meth:`to_dict`'s form, or the least form in the head of this module.

        A document that does not say ``simulated`` is taken for a description: True. ``host``
        outranks ``ram_bytes`` and ``disk_free_bytes``. Raises :class:`QuantuiError`
        (``hardware.wrong-type``, ``hardware.unknown-key``) with the field's path.
        """
        top = Fields(data)
        top.allow((*_names(cls), "ram_bytes", "disk_free_bytes", *_ELSEWHERE))
        ram, disk_free = top.count("ram_bytes"), top.count("disk_free_bytes")
        nested = top.nested("host")
        if nested is None:
            disks = () if disk_free is None else (Disk(ANY_PURPOSE, free_bytes=disk_free),)
            host = Host(ram_total_bytes=ram, disks=disks)
        else:
            host = _host(nested)
        simulated = top.flag("simulated")
        return cls(
            gpus=tuple(_gpu(item, i) for i, item in enumerate(top.objects("gpus") or ())),
            host=host,
            driver_version=top.text("driver_version"),
            cuda_version=top.text("cuda_version"),
            cuda_visible_devices=top.text("cuda_visible_devices"),
            problems=_problems(top),
            simulated=True if simulated is None else simulated,
        )


def _names(of: type[Any]) -> list[str]:
    return [field.name for field in fields(of)]


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a dataclass holds
    """Tuples as lists: what ``json`` gives back after a round trip."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _fingerprint_of(gpu: Gpu) -> str:
    capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "?"
    total = "?" if gpu.total_bytes is None else gpu.total_bytes
    slices = "+".join(sorted(part.profile or "?" for part in gpu.mig or ()))
    return f"{gpu.name or '?'} {total} B cc {capability}" + (f" MIG {slices}" if slices else "")


def _problems(parent: Fields) -> tuple[Problem, ...]:
    found = []
    for item in parent.objects("problems") or ():
        item.allow(_names(Problem))
        found.append(
            Problem(
                code=item.needed("code"),
                what=item.needed("what"),
                why=item.text("why") or "",
                fix=item.text("fix") or "",
                severity=item.text("severity") or "warning",
            )
        )
    return tuple(found)


def _process(item: Fields) -> GpuProcess:
    item.allow(_names(GpuProcess))
    return GpuProcess(
        pid=item.count("pid"),
        name=item.text("name"),
        used_bytes=item.count("used_bytes"),
        gpu_instance_id=item.count("gpu_instance_id"),
    )


def _slice(item: Fields) -> MigSlice:
    item.allow(_names(MigSlice))
    return MigSlice(
        uuid=item.text("uuid"),
        name=item.text("name"),
        profile=item.text("profile"),
        total_bytes=item.count("total_bytes"),
        used_bytes=item.count("used_bytes"),
        free_bytes=item.count("free_bytes"),
        gpu_instance_id=item.count("gpu_instance_id"),
        compute_instance_id=item.count("compute_instance_id"),
    )


def _gpu(item: Fields, position: int) -> Gpu:
    item.allow(_names(Gpu))
    index = item.count("index")
    processes, mig = item.objects("processes"), item.objects("mig")
    return Gpu(
        index=position if index is None else index,
        uuid=item.text("uuid"),
        name=item.text("name"),
        total_bytes=item.count("total_bytes"),
        used_bytes=item.count("used_bytes"),
        free_bytes=item.count("free_bytes"),
        reserved_bytes=item.count("reserved_bytes"),
        unified_memory=item.flag("unified_memory"),
        compute_capability=item.capability("compute_capability"),
        temperature_c=item.number("temperature_c"),
        power_w=item.number("power_w"),
        utilization_percent=item.number("utilization_percent"),
        processes=None if processes is None else tuple(map(_process, processes)),
        mig_enabled=item.flag("mig_enabled"),
        mig=None if mig is None else tuple(map(_slice, mig)),
        problems=_problems(item),
    )


def _disk(item: Fields) -> Disk:
    item.allow(_names(Disk))
    return Disk(
        purpose=item.needed("purpose"),
        path=item.text("path"),
        total_bytes=item.count("total_bytes"),
        free_bytes=item.count("free_bytes"),
        device=item.text("device"),
    )


def _host(item: Fields) -> Host:
    item.allow(_names(Host))
    return Host(
        cpu_name=item.text("cpu_name"),
        physical_cores=item.count("physical_cores"),
        logical_cores=item.count("logical_cores"),
        usable_cores=item.count("usable_cores"),
        cpu_flags=item.texts("cpu_flags"),
        ram_total_bytes=item.count("ram_total_bytes"),
        ram_available_bytes=item.count("ram_available_bytes"),
        ram_limit=item.text("ram_limit"),
        disks=tuple(map(_disk, item.objects("disks") or ())),
        platform=item.text("platform"),
        machine=item.text("machine"),
        kernel=item.text("kernel"),
        python=item.text("python"),
        glibc=item.text("glibc"),
    )
