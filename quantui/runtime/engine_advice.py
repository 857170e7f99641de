"""What a person should know of the engines on a machine: which matter there, what is wrong, and the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.hardware import Problem
from quantui.engines.choice import default_engine_name, family_member, machine_problems, suits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.hardware import HardwareReport
    from quantui.runtime.engines import EngineStatus


def for_this_machine(engines: Iterable[EngineStatus], report: HardwareReport) -> list[EngineStatus]:
    """Those that suit ``report``, and those that are there: they take room, and can be removed."""
    return [engine for engine in engines if engine.state != "absent" or suits(engine.spec, report)]


def engine_problems(engines: Iterable[EngineStatus], report: HardwareReport) -> tuple[Problem, ...]:
    """What is wrong with the engines; a note when none can serve on this machine yet."""
    engines = list(engines)
    wanted = default_engine_name(report)
    found = [
        Problem(
            code=f"engine.{engine.state}",
            what=f"The engine {engine.spec.name} is {engine.state}.",
            why=engine.problem,
            fix=engine_fix(engine),
            severity="note" if engine.state == "outdated" else "warning",
        )
        for engine in engines
        if engine.problem
    ]
    found.extend(
        Problem(
            code="engine.unsuited",
            what=f"The engine {engine.spec.name} does not suit this machine.",
            why=text,
            fix="" if engine.spec.name == own else f"Use the engine {own}.",
        )
        for engine in engines
        for own in (family_member(engine.spec.family, report),)
        if engine.state != "absent" or engine.spec.name == wanted
        for text in machine_problems(engine.spec, report)
    )
    servers = [engine for engine in engines if "serve" in engine.spec.provides]
    able = any(engine.state in ("installed", "outdated") for engine in servers)
    advised = [engine for engine in servers if engine.spec.name == wanted]
    if not able and advised and not machine_problems(advised[0].spec, report):
        found.append(
            Problem(
                code="engine.none-serves",
                what="quantui has not made an engine that can serve yet.",
                why="Serving needs one, or an interpreter that has vLLM.",
                fix=f"quantui engine install {wanted}",
                severity="note",
            )
        )
    return tuple(found)


def engine_fix(engine: EngineStatus) -> str:
    """The command that puts the engine's state right; "" when nothing has to be done."""
    match engine.state:
        case "half-made":
            return f"quantui engine install {engine.spec.name}"
        case "broken" | "outdated":
            return f"quantui engine install {engine.spec.name} --force"
    return ""
