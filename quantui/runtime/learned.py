"""What this machine's earlier loads teach `fit` and `recommend`: a correction to memory, and own speeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.calibration import Load, calibration_for, machine_key, own_runs
from quantui.domain.fit import Calibration
from quantui.domain.speed import OwnRun
from quantui.runtime.observations import read_observations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.hardware import Gpu
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
    load = _load(subject, method, gpus, tensor_parallel, pipeline_parallel)
    found = calibration_for(load, read_observations())
    return found and Calibration(found.residual_bytes, found.runs, found.source)


def own_speeds(subject: Subject, gpus: Sequence[Gpu]) -> tuple[OwnRun, ...]:
    """How fast this very model answered on this machine, in any method."""
    if subject.hardware.simulated:
        return ()
    load = _load(subject, "", gpus, 1, 1)
    return tuple(
        OwnRun(
            method=run.method,
            model=run.model,
            hardware=load.machine,
            users=run.users,
            tokens_per_s=run.tokens_per_s * run.users,
            context=run.context or 0,
            tensor_parallel=run.tensor_parallel,
        )
        for run in own_runs(load, read_observations())
        if run.model == subject.model.fingerprint
    )


def _load(
    subject: Subject, method: str, gpus: Sequence[Gpu], tensor_parallel: int, pipeline_parallel: int
) -> Load:
    return Load(
        machine=machine_key(subject.hardware, gpus),
        engine=subject.engine.name,
        vllm_version=subject.engine.version,
        method=method,
        model=subject.model.fingerprint,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
    )
