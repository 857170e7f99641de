"""Which engine suits a machine or makes a format, and what of a machine does not suit an engine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware_checks import MIN_COMPUTE_CAPABILITY
from quantui.domain.versions import leading_numbers
from quantui.engines.specs import load_specs

if TYPE_CHECKING:
    from quantui.domain.hardware import HardwareReport
    from quantui.engines.specs import EngineSpec

CUDA_ENGINE = "vllm-cuda"
CPU_ENGINE = "vllm-cpu"


def producing(producer: str) -> str:
    """The purpose, a key of a spec's ``provides``, that ``producer`` quantizes under."""
    return f"quantize-{producer}"


def default_engine_name(report: HardwareReport) -> str:
    """``vllm-cuda`` when a GPU of compute capability 7.5 or higher is known, else ``vllm-cpu``."""
    return CUDA_ENGINE if _has_suited_gpu(report) else CPU_ENGINE


def producer_engine_name(producer: str, report: HardwareReport) -> str:
    """The engine that quantizes with ``producer`` (``llm-compressor``, ``autoawq`` ...) on this machine.

    Of those for CUDA and for the CPU, the one :func:`default_engine_name` would take. Raises
    ``engine.no-producer``, which lists the known producers.
    """
    specs = load_specs().values()
    able = [spec for spec in specs if producing(producer) in spec.provides]
    if not able:
        known = sorted(
            {key for spec in specs for key in spec.provides if key.startswith("quantize-")}
        )
        raise QuantuiError(
            "engine.no-producer",
            f"No engine quantizes with {producer}.",
            f"There are engines for {', '.join(key.removeprefix('quantize-') for key in known)}.",
            "Name one of these as the producer, or leave it to quantui.",
            ExitCode.BAD_INPUT,
        )
    return _suited(able, report).name


def family_member(name: str, report: HardwareReport) -> str:
    """``name``, or the engine of that family which suits the machine: ``compressor`` to ``compressor-cpu``.

    A name that is neither is given back as it is.
    """
    family = [spec for spec in load_specs().values() if name == spec.family != spec.name]
    return _suited(family, report).name if family else name


def suits(spec: EngineSpec, report: HardwareReport) -> bool:
    """Whether ``spec`` is the one of its family that would be taken on this machine."""
    return spec.accelerator in (None, _accelerator(report))


def _suited(specs: list[EngineSpec], report: HardwareReport) -> EngineSpec:
    return next((spec for spec in specs if suits(spec, report)), specs[0])


def _accelerator(report: HardwareReport) -> str:
    return "cuda" if _has_suited_gpu(report) else "cpu"


def _has_suited_gpu(report: HardwareReport) -> bool:
    return any(
        gpu.compute_capability is not None and gpu.compute_capability >= MIN_COMPUTE_CAPABILITY
        for gpu in report.gpus
    )


def machine_problems(spec: EngineSpec, report: HardwareReport) -> tuple[str, ...]:
    """What of this machine keeps ``spec`` from working on its GPUs; empty when nothing is known."""
    needs = spec.platform
    problems: list[str] = []
    if needs.compute_capability is not None:
        known = [gpu.compute_capability for gpu in report.gpus if gpu.compute_capability]
        if not report.gpus:
            problems.append("No NVIDIA GPU was found.")
        elif known and max(known) < leading_numbers(needs.compute_capability):
            best = ".".join(map(str, max(known)))
            problems.append(
                f"The GPU's compute capability is {best}; {spec.name} needs "
                f"{needs.compute_capability}."
            )
    if (
        needs.cuda_driver is not None
        and report.cuda_version is not None
        and leading_numbers(report.cuda_version) < leading_numbers(needs.cuda_driver)
    ):
        problems.append(
            f"The driver supports CUDA {report.cuda_version}; this torch is built for "
            f"{needs.cuda_driver}. Update the driver, or name an interpreter of your own made with "
            f"`uv pip install {spec.main_package} --torch-backend=auto` in the profile."
        )
    return tuple(problems)
