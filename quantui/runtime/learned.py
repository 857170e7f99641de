"""What earlier loads on this machine say of one that `fit` and `recommend` are asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.runtime.observations import calibration, load_here, own_speeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.fitting.calibration import Calibration
    from quantui.domain.hardware import Gpu
    from quantui.domain.performance.speed_evidence import OwnRun
    from quantui.runtime.subject import Subject


def correction(
    subject: Subject,
    method: str,
    gpus: Sequence[Gpu],
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> Calibration | None:
    """The correction for such a load; None before a load taught one, and for a machine that is not this one."""
    if subject.hardware.simulated:
        return None
    return calibration(
        load_here(
            subject.hardware,
            gpus,
            engine=subject.engine.name,
            vllm_version=subject.engine.version,
            model=subject.model.fingerprint,
            method=method,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
        )
    )


def speeds_here(subject: Subject, gpus: Sequence[Gpu]) -> tuple[OwnRun, ...]:
    """How fast this very model answered on this machine, in any method."""
    if subject.hardware.simulated:
        return ()
    engine, model = subject.engine, subject.model.fingerprint
    return own_speeds(
        load_here(
            subject.hardware, gpus, engine=engine.name, vllm_version=engine.version, model=model
        )
    )
