"""What `fit` and `recommend` answer for: a model, its adapter, a machine and a vLLM, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.adapter_match import base_of, check_adapter_fits
from quantui.domain.errors import QuantuiError
from quantui.domain.four_bit import sixteen_bit_base
from quantui.domain.memory import served_shape
from quantui.domain.weights.weight_census import weight_census
from quantui.runtime.described_hardware import described_hardware
from quantui.runtime.engine_version import EngineVersion, engine_version
from quantui.runtime.models import resolve_adapter, resolve_model
from quantui.runtime.probe import probe_hardware

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.domain.architecture.model_shape import ModelShape, WeightGroup
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.runtime.file_hashes import Progress


@dataclass(frozen=True)
class Subject:
    """The facts. ``described_by`` is the file of a machine that is not this one."""

    model: ModelSpec
    adapter: AdapterSpec | None
    shape: ModelShape
    census: tuple[WeightGroup, ...] | None
    hardware: HardwareReport
    described_by: str | None
    engine: EngineVersion
    notes: tuple[str, ...] = ()


def look_at(
    model: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    adapter_revision: str | None = None,
    hardware: HardwareReport | str | None = None,
    vllm_version: str | None = None,
    offline: bool | None = None,
    on_cpu: bool = False,
    probe_engine: bool = False,
    progress: Progress | None = None,
    on_event: Callable[[dict[str, object]], None] | None = None,
) -> Subject:
    """Look up everything; no weight is read or downloaded, and no engine is started but for ``probe_engine``.

    ``model`` may be a LoRA adapter: then its base is taken. ``hardware`` is a report, a file as
    :func:`.described_hardware` reads it, or None for this machine; ``on_cpu`` leaves its GPUs alone. Raises
    QuantuiError for what is missing or wrong, the cheapest to notice first.
    """
    described_by = hardware if isinstance(hardware, str) else None
    if described_by is not None:
        hardware = described_hardware(described_by)
    base, lora, notes = _model_and_adapter(
        model, revision, adapter, adapter_revision, offline=offline, progress=progress
    )
    report = probe_hardware() if hardware is None else hardware
    assert not isinstance(report, str)
    engine = engine_version(
        report, vllm_version, on_cpu=on_cpu, probe=probe_engine, on_event=on_event
    )
    return subject_of(base, lora, report, engine, described_by=described_by, notes=notes)


def subject_of(
    model: ModelSpec,
    adapter: AdapterSpec | None,
    hardware: HardwareReport,
    engine: EngineVersion,
    *,
    described_by: str | None = None,
    notes: tuple[str, ...] = (),
) -> Subject:
    """The subject of what was looked up before."""
    return Subject(
        model=model,
        adapter=adapter,
        shape=served_shape(model),
        census=weight_census(model.config, model.tensors),
        hardware=hardware,
        described_by=described_by,
        engine=engine,
        notes=notes,
    )


def base_model(
    adapter: AdapterSpec, *, offline: bool | None = None, progress: Progress | None = None
) -> ModelSpec:
    """The model to use with ``adapter``: what it names as its base; where that is a 4-bit copy, its 16-bit original.

    Revisions of a copy are not those of the original. Raises QuantuiError ``adapter.no-base``, and as
    :func:`.resolve_model`.
    """
    named = base_of(adapter)
    in_16_bit = sixteen_bit_base(named)
    return resolve_model(
        in_16_bit or named,
        None if in_16_bit else adapter.base_revision,
        offline=offline,
        progress=progress,
        sketch=True,
    )


def _model_and_adapter(
    ref: str,
    revision: str | None,
    adapter: str | None,
    adapter_revision: str | None,
    *,
    offline: bool | None,
    progress: Progress | None,
) -> tuple[ModelSpec, AdapterSpec | None, tuple[str, ...]]:
    """The two, found to belong together, and what could not be compared."""
    try:
        model = resolve_model(ref, revision, offline=offline, progress=progress, sketch=True)
    except QuantuiError as error:
        if error.code != "model.is-an-adapter" or adapter is not None:
            raise
        lora = resolve_adapter(ref, revision, offline=offline, progress=progress)
        model = base_model(lora, offline=offline, progress=progress)
        return model, lora, check_adapter_fits(model, lora).notes
    if adapter is None:
        return model, None, ()
    lora = resolve_adapter(adapter, adapter_revision, offline=offline, progress=progress)
    return model, lora, check_adapter_fits(model, lora).notes
