"""What is copied from the Failure step: enough for whoever is asked for help, and nothing secret.

Environment variables never go in; what looks like a token or key is blotted out, and the home folder is ``~``.
"""

from __future__ import annotations

import platform
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from quantui import __version__
from quantui.domain.plan import ServeStep
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantui.domain.errors import QuantuiError
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.plan import Plan
    from quantui.tui.run_view import RunView

LOG_LINES = 40

_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_[hidden]"),
    (re.compile(r"(?i)(\bbearer\s+)\S+"), r"\1[hidden]"),
    (re.compile(r"(\w+://)[^\s/@:]+:[^\s/@]+@"), r"\1[hidden]@"),
    (
        re.compile(
            r"""(?i)((?:api[-_]?key|token|secret|passw(?:or)?d|authorization)["']?(?:\s*[=:]\s*|\s+)[\["']*)"""
            r"""[^\s"',\]]{6,}"""
        ),
        r"\1[hidden]",
    ),
)


def without_secrets(text: str) -> str:
    """``text`` with tokens, keys and passwords blotted out and the home folder as ``~``."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def failure_report(
    error: QuantuiError, view: RunView, hardware: HardwareReport | None, log: Sequence[str]
) -> str:
    """The error, versions, machine, steps, commands and the last lines of the log, as Markdown."""
    lines = [f"### {error.code}: {error.what}"]
    lines += [f"why: {error.why}"] if error.why else []
    lines += [f"fix: {error.fix}"] if error.fix else []
    lines += [*error.detail, "", *_machine(view, hardware), "", *_steps(view)]
    if view.plan is not None:
        lines += ["", "```sh", *_commands(view.plan), "```"]
    if log:
        lines += ["", f"Last lines of {view.last_step}.log:", "```", *log[-LOG_LINES:], "```"]
    return without_secrets(sanitize("\n".join(lines), keep_newlines=True))


def _machine(view: RunView, hardware: HardwareReport | None) -> Iterator[str]:
    yield f"quantui {__version__}, Python {platform.python_version()}, {platform.platform()}"
    if view.plan is not None:
        versions = ", ".join(
            f"{name} {version}" for name, version in view.plan.engine.versions.items()
        )
        yield f"engine {view.plan.engine.name}: {versions}"
    if hardware is not None:
        yield f"machine {hardware.fingerprint()}"


def _steps(view: RunView) -> Iterator[str]:
    for step in view.state.steps:
        took = "" if step.seconds is None else f" after {step.seconds:.1f} s"
        phase = f" in {step.phase}" if step.status == "failed" and step.phase else ""
        yield f"- {step.id}: {step.status}{phase}{took}"


def _commands(plan: Plan) -> Iterator[str]:
    for step, (title, command) in zip(plan.steps, plan.commands(), strict=True):
        yield f"# {title}"
        yield shlex.join(step.argv) if isinstance(step, ServeStep) else command
