"""Which engine suits a machine, and what of a machine does not suit an engine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.hardware_checks import MIN_COMPUTE_CAPABILITY
from quantui.domain.versions import leading_numbers

if TYPE_CHECKING:
    from quantui.domain.hardware import HardwareReport
    from quantui.engines.specs import EngineSpec

CUDA_ENGINE = "vllm-cuda"
CPU_ENGINE = "vllm-cpu"


def default_engine_name(report: HardwareReport) -> str:
    """``vllm-cuda`` when a GPU of compute capability 7.5 or higher is known, else ``vllm-cpu``."""
    suited = any(
        gpu.compute_capability is not None and gpu.compute_capability >= MIN_COMPUTE_CAPABILITY
        for gpu in report.gpus
    )
    return CUDA_ENGINE if suited else CPU_ENGINE


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
                f"The GPU's compute capability is {best}; vLLM needs {needs.compute_capability}."
            )
    if (
        needs.cuda_driver is not None
        and report.cuda_version is not None
        and leading_numbers(report.cuda_version) < leading_numbers(needs.cuda_driver)
    ):
        problems.append(
            f"The driver supports CUDA {report.cuda_version}; this torch is built for "
            f"{needs.cuda_driver}. Update the driver, or name an interpreter of your own made with "
            "`uv pip install vllm --torch-backend=auto` in the profile."
        )
    return tuple(problems)
