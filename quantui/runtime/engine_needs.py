"""Which engines a draft needs, by purpose; whether they are there is another question."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.domain.plan import TO_INSTALL, TO_REINSTALL, EngineFacts
from quantui.engines.choice import default_engine_name, producer_engine_name, producing
from quantui.engines.specs import engine_spec
from quantui.runtime.engine_install import check_platform
from quantui.runtime.engine_site import SHOWN
from quantui.runtime.engine_store import engine_python
from quantui.runtime.engines import Engine, find_engine

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.producing.recipe import Recipe
    from quantui.engines.specs import EngineSpec


@dataclass(frozen=True)
class EngineNeed:
    """An engine that has what ``purpose`` takes; ``python``: the interpreter that is named for it.

    ``otherwise``: the purpose that is enough when the named interpreter has no vLLM.
    """

    name: str
    purpose: str
    python: str | None = None
    otherwise: str | None = None

    def find(self) -> Engine:
        """The engine; raises what :func:`find_engine` raises."""
        try:
            return find_engine(self.name, python=self.python, purpose=self.purpose)
        except QuantuiError as error:
            if error.code != "engine.lacks-vllm" or self.otherwise is None:
                raise
        return find_engine(self.name, python=self.python, purpose=self.otherwise)

    def found(self) -> EngineFacts:
        """What a plan needs to know of :meth:`find`."""
        engine = self.find()
        return EngineFacts(
            engine.name, engine.python, engine.origin, self._on_cpu, versions=engine.versions
        )

    def facts(self) -> EngineFacts:
        """:meth:`found`, or of an engine that is absent or broken what it will be once it is installed.

        Raises ``engine.platform`` where it cannot be, and what :meth:`find` raises for an interpreter that is named.
        """
        try:
            return self.found()
        except QuantuiError as error:
            origin = _TO_COME.get(error.code)
            if origin is None:
                raise
        spec = engine_spec(self.name)
        check_platform(spec)
        python = str(engine_python(self.name))
        return EngineFacts(self.name, python, origin, self._on_cpu, locked_site(spec))

    @property
    def _on_cpu(self) -> bool:
        return engine_spec(self.name).accelerator != "cuda"


_TO_COME = {"engine.not-installed": TO_INSTALL, "engine.broken": TO_REINSTALL}


def locked_site(spec: EngineSpec) -> dict[str, str]:
    """What :meth:`.Site.versions` will tell of an environment made from ``spec``."""
    here = platform.python_version()
    same = here.startswith(f"{spec.python}.")
    locked = spec.locked_versions
    shown = {name: locked[name] for name in SHOWN if name in locked}
    return {"python": here if same else spec.python, **shown}


@dataclass(frozen=True)
class EngineNeeds:
    """``main`` serves, or proves what is only made; ``merge`` merges, ``quantize`` has the producer."""

    main: EngineNeed
    merge: EngineNeed | None = None
    quantize: EngineNeed | None = None

    @property
    def each(self) -> tuple[EngineNeed, ...]:
        """All that are needed, the first one first."""
        found = (self.merge, self.quantize, self.main)
        return tuple(dict.fromkeys(need for need in found if need is not None))


def engine_needs(
    draft: Draft, hardware: HardwareReport, *, serve: bool, merges: bool, recipe: Recipe | None
) -> EngineNeeds:
    """What the steps of ``draft`` run in; ``recipe`` is what is made, if something is.

    Where a checkpoint is only merged, the engine that merges is enough. One that is quantized is proven in vLLM where
    the named interpreter has it.
    """
    name = draft.engine.name
    if name == "auto":
        name = default_engine_name(hardware)
    python = draft.engine.python
    merge = EngineNeed(name, "merge", python) if merges else None
    if recipe is None:
        main = merge if merge and not serve else EngineNeed(name, "serve", python)
        return EngineNeeds(main, merge)
    main = EngineNeed(name, "serve", python, None if serve else "merge")
    maker = producer_engine_name(recipe.producer, hardware)
    named = draft.quantization.python
    if named is None and "serve" in engine_spec(maker).provides:
        # The producer is a package of vLLM's own engine: so is the interpreter that is named for that.
        maker, named = name, python
    return EngineNeeds(main, merge, EngineNeed(maker, producing(recipe.producer), named))
