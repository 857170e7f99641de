"""Look up everything a draft speaks of: model, adapter, machine, engine. No weight is read or downloaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quantui.domain.adapter_match import base_of, check_adapter_fits
from quantui.domain.errors import QuantuiError
from quantui.domain.four_bit import sixteen_bit_base
from quantui.domain.methods import method
from quantui.domain.plan import Plan, ServeStep
from quantui.domain.producing.recipes import check_makeable, recipe_for
from quantui.engines.choice import default_engine_name
from quantui.engines.fetching import download_steps
from quantui.engines.planning import Facts, build_plan
from quantui.engines.vllm_server import server_program
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.calibration_source import calibration_facts, check_calibration
from quantui.runtime.engine_needs import EngineNeed, EngineNeeds, engine_needs
from quantui.runtime.engines import find_engine
from quantui.runtime.models import download_job, resolve_adapter, resolve_model, split_revision
from quantui.runtime.observations import read_observations
from quantui.runtime.plan_room import told_of_plan
from quantui.runtime.probe import probe_hardware
from quantui.runtime.server import free_port

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from quantui.domain.draft import Draft, EngineChoice
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.domain.plan import CalibrationFacts
    from quantui.domain.producing.recipe import Recipe
    from quantui.runtime.engines import Engine
    from quantui.runtime.file_hashes import Progress

_Spec = TypeVar("_Spec", "ModelSpec", "AdapterSpec")

WORKERS = Path(__file__).parent.parent / "engines" / "workers"
_FOUR_BIT = {"auto": None, "yes": True, "no": False}


@dataclass(frozen=True)
class Inputs:
    """The model and the adapters that a draft names, found to belong together.

    ``recipe``: what has to be made of them, if something has; ``calibration``: the texts that takes.
    """

    model: ModelSpec
    adapters: tuple[AdapterSpec, ...]
    recipe: Recipe | None = None
    calibration: CalibrationFacts | None = None


def look_up(
    draft: Draft,
    *,
    serve: bool = True,
    make: bool = False,
    sketch: bool = False,
    progress: Progress | None = None,
) -> Inputs:
    """What ``draft`` works on. Needs no engine: nobody installs one to learn of a misspelt name.

    ``make`` is as in :func:`build_plan`; ``sketch`` takes a folder with only config.json for a model. Raises
    QuantuiError for whatever is missing or wrong. The cheap and likely mistakes come first: method, texts and
    calibration files before the Hub is asked.
    """
    chosen = draft.quantization
    method(chosen.method)
    _check_text("check.text", draft.check.text if serve else None)
    _check_text("quantization.proof_text", chosen.proof_text)
    check_calibration(chosen.calibration)
    adapters = _adapters(draft, progress)
    model = resolve_model(*_base(draft, adapters), progress=progress, sketch=sketch)
    for adapter in adapters:
        check_adapter_fits(model, adapter)
    recipe = recipe_for(chosen, model, always=make)
    calibration = None
    if recipe is not None:
        check_makeable(draft, recipe)
        _check_text("check.text", draft.check.text)
        if recipe.needs_data:
            calibration = calibration_facts(chosen.calibration, progress=progress)
    return Inputs(model, adapters, recipe, calibration)


def _check_text(option: str, text: str | None) -> None:
    if text is None or Path(text).expanduser().is_file():
        return
    raise QuantuiError(
        "check.no-text" if option == "check.text" else "quantize.no-proof-text",
        f"{option} names {text}, which is not a file.",
        fix="Give the path of a text file, or leave it out.",
    )


def resolve(
    draft: Draft,
    *,
    serve: bool = True,
    make: bool = False,
    hardware: HardwareReport | None = None,
    install: bool = False,
    progress: Progress | None = None,
    inputs: Inputs | None = None,
) -> Facts:
    """The facts for ``draft``; ``inputs`` if :func:`look_up` was asked before.

    With ``install``, an engine that is not there is assumed to be as its lock says: the plan then installs it.
    Raises QuantuiError for whatever is missing or wrong, with ``install`` also ``engine.platform``.
    """
    inputs = inputs or look_up(draft, serve=serve, make=make, progress=progress)
    hardware = hardware or probe_hardware()
    needs = needed_engines(draft, inputs, serve=serve, hardware=hardware)
    find = EngineNeed.facts if install else EngineNeed.found
    merging = None if needs.merge is None else find(needs.merge)
    engine = merging if merging and needs.main == needs.merge else find(needs.main)
    steps = download_steps(inputs.model, inputs.adapters)
    return Facts(
        model=_placed(inputs.model),
        adapters=tuple(map(_placed, inputs.adapters)),
        hardware=hardware,
        engine=engine,
        merge_engine=merging or engine,
        artifacts_dir=str(ArtifactStore().root),
        workers_dir=str(WORKERS),
        port=draft.serve.port or free_port(draft.serve.host),
        download_jobs={step: download_job(spec) for step, spec in steps if not spec.complete},
        observations=() if hardware.simulated else read_observations(),
        quantize_engine=None if needs.quantize is None else find(needs.quantize),
        calibration=inputs.calibration,
    )


def needed_engines(
    draft: Draft, inputs: Inputs, *, serve: bool, hardware: HardwareReport | None = None
) -> EngineNeeds:
    """The engines that the steps for ``inputs`` run in."""
    return engine_needs(
        draft,
        hardware or probe_hardware(),
        serve=serve,
        merges=bool(inputs.adapters),
        recipe=inputs.recipe,
    )


def chosen_engine(
    choice: EngineChoice, hardware: HardwareReport | None = None, *, purpose: str = "serve"
) -> Engine:
    """The engine that ``choice`` names, or the one that suits the machine."""
    name = choice.name
    if name == "auto":
        name = default_engine_name(hardware or probe_hardware())
    return find_engine(name, python=choice.python, purpose=purpose)


def plan_for(
    draft: Draft,
    *,
    serve: bool = True,
    make: bool = False,
    force: bool = False,
    install: bool = False,
    check_arguments: bool = True,
    hardware: HardwareReport | None = None,
    on_event: Callable[[dict[str, object]], None] | None = None,
    cancel: threading.Event | None = None,
    progress: Progress | None = None,
    inputs: Inputs | None = None,
    out: str | None = None,
) -> tuple[Plan, Facts]:
    """The plan for ``draft`` on this machine, its vLLM arguments checked against the engine's own parser.

    The first check of an engine takes 20 to 30 s (``on_event`` is told), later ones a tenth of one. It is
    skipped when the profile passes nothing of its own to vLLM, and when the engine is still to be installed.
    ``make`` and ``out`` are as in :func:`build_plan`, ``install`` as in :func:`resolve`. ``hardware``: another
    machine, or what was probed of this one before.
    """
    facts = resolve(
        draft,
        serve=serve,
        make=make,
        install=install,
        hardware=hardware,
        progress=progress,
        inputs=inputs,
    )
    try:
        plan = build_plan(draft, facts, serve=serve, make=make, force=force, out=out)
    except QuantuiError as error:
        if error.code != "quantize.not-enough-disk" or facts.hardware.simulated:
            raise
        whole = build_plan(draft, facts, serve=serve, make=make, force=True, out=out)
        raise told_of_plan(error, whole) from None
    step = plan.step("serve")
    if not (check_arguments and draft.serve.extra_args and isinstance(step, ServeStep)):
        return plan, facts
    if plan.engine.absent:
        text = f"serve.extra_args are checked by vLLM itself: {plan.engine.name} is not there yet."
        return replace(plan, notices=(*plan.notices, text)), facts
    from quantui.runtime.capabilities import engine_capabilities

    engine = chosen_engine(draft.engine, facts.hardware)
    capabilities = engine_capabilities(engine, cancel=cancel, on_event=on_event)
    capabilities.check_arguments(step.argv[len(server_program(plan.engine)) :])
    return plan, facts


def _adapters(draft: Draft, progress: Progress | None) -> tuple[AdapterSpec, ...]:
    first = (draft.adapter.id, draft.adapter.revision, _FOUR_BIT[draft.adapter.trained_in_4bit])
    others = [(*split_revision(ref), None) for ref in draft.adapter.also]
    return tuple(
        resolve_adapter(ref, revision, four_bit=four_bit, progress=progress)
        for ref, revision, four_bit in (first, *others)
        if ref is not None
    )


def _base(draft: Draft, adapters: tuple[AdapterSpec, ...]) -> tuple[str, str | None]:
    """The base to use and its revision: the draft's, else what the first adapter was trained on.

    Where that is a 4-bit copy, the 16-bit checkpoint is taken, whose revisions are others.
    """
    if draft.model.id:
        return draft.model.id, draft.model.revision
    if not adapters:
        raise QuantuiError("profile.no-model", "No model is named.", fix="Set model.id.")
    named = base_of(adapters[0])
    in_16_bit = sixteen_bit_base(named)
    if in_16_bit:
        return in_16_bit, draft.model.revision
    return named, draft.model.revision or adapters[0].base_revision


def _placed(spec: _Spec) -> _Spec:
    """``spec`` with the path that it will have once it is downloaded."""
    return spec if spec.complete else replace(spec, path=spec.path or _snapshot(spec))


def _snapshot(spec: ModelSpec | AdapterSpec) -> str:
    """Where the Hub cache will hold the snapshot (huggingface_hub's documented layout)."""
    from huggingface_hub import constants

    folder = "--".join(["models", *spec.ref.split("/")])
    return str(Path(constants.HF_HUB_CACHE) / folder / "snapshots" / (spec.revision or "main"))
