"""The steps of the wizard in their order: names, titles, and the screen of each, imported when it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.tui.screens.step import StepScreen


@dataclass(frozen=True)
class WizardStep:
    """One step; ``place`` is ``module:class`` of its screen."""

    name: str
    title: str
    place: str

    def screen(self) -> StepScreen:
        """A fresh screen of the step. What was answered is in the session, not in screens."""
        module, _, name = self.place.partition(":")
        made: StepScreen = getattr(import_module(f"quantui.tui.screens.{module}"), name)()
        return made


STEPS: tuple[WizardStep, ...] = (
    WizardStep("hardware", "Hardware", "hardware:HardwareScreen"),
    WizardStep("use_case", "Use case", "use_case:UseCaseScreen"),
    WizardStep("model", "Model", "model:ModelScreen"),
    WizardStep("method", "Method", "method:MethodScreen"),
    WizardStep("review", "Review", "review:ReviewScreen"),
    WizardStep("run", "Run", "run:RunScreen"),
    WizardStep("ready", "Ready", "ready:ReadyScreen"),
)
FAILURE = WizardStep("failure", "Failure", "failure:FailureScreen")
"""Stands in for Run once a run has failed: it is no step of its own."""

_NAMES = [step.name for step in STEPS]


def step_named(name: str) -> WizardStep:
    """The step with a name; raises KeyError."""
    return {step.name: step for step in (*STEPS, FAILURE)}[name]


def place_of(name: str) -> int:
    """Its number from 0; a failure is where the run is."""
    return _NAMES.index("run" if name == "failure" else name)


def after(name: str) -> str | None:
    """The next step, None after the last."""
    place = place_of(name) + 1
    return _NAMES[place] if place < len(_NAMES) else None


def before(name: str) -> str | None:
    """The step before, None before the first."""
    place = place_of(name) - 1
    return _NAMES[place] if place >= 0 else None
