"""``quantui --profile FILE``: what the profile describes, done again without a screen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.cli.engine import ensure_engines
from quantui.cli.output import console, print_json, program_name, say
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    import argparse
    import threading
    from collections.abc import Iterator

    from quantui.domain.draft import Draft
    from quantui.domain.fitting.fit_facts import Fit
    from quantui.domain.plan import Plan
    from quantui.domain.run_state import RunState
    from quantui.engines.planning import Facts
    from quantui.runtime.file_hashes import Progress
    from quantui.runtime.resolve import Inputs

_LARGE_BYTES = 1024**3
"""Files above this take seconds to hash: a person is told why nothing seems to happen."""

_LONG_S = 1.0
"""After so much time of reading smaller ones it is told too."""


def run(args: argparse.Namespace) -> int:
    """Replay ``args.profile``; gives the exit code of the run."""
    from quantui.domain.profile import apply_overrides
    from quantui.engines.recording import differences
    from quantui.headless import cancel_on_signals, interrupt_on_signals
    from quantui.runtime.known_profiles import note_profile
    from quantui.runtime.profile_file import load_profile
    from quantui.runtime.resolve import look_up, needed_engines

    profile = Path(args.profile)
    draft = load_profile(profile)
    note_profile(profile, draft.title)
    draft = apply_overrides(draft, args.assignments)
    serve = not args.prepare_only
    looking = args.check or args.dry_run
    with interrupt_on_signals():
        # Before an engine is asked for: a wrong name is told at once, not after an install.
        inputs = look_up(draft, serve=serve, progress=tell_of_large_files())
    with cancel_on_signals() as cancel:
        if not looking:
            needs = needed_engines(draft, inputs, serve=serve)
            ensure_engines(needs.each, cancel=cancel, yes=args.yes)
        plan, facts = _plan(draft, inputs, serve=serve, force=args.force, cancel=cancel)
        changed = differences(draft, facts, plan)
        if args.check:
            return _print_check(plan, changed, as_json=args.json)
        if args.dry_run:
            return print_commands(plan, as_json=args.json)
        for line in changed:
            say(console(stderr=True), f"  ! differs from the profile: {sanitize(line)}")
        hold = serve and not args.check_only
        state = run_plan(plan, cancel, hold=hold, as_json=args.json)
    return exit_code(state)


def tell_of_large_files() -> Progress:
    """Tells which large files are read to know their content, or that many small ones are."""
    told: set[str] = set()
    began: float | None = None

    def progress(name: str, done: int, total: int) -> None:
        nonlocal began
        del done
        began = began or time.monotonic()
        if total > _LARGE_BYTES and name not in told:
            told.add(name)
            size = format_bytes(total)
            text = f"reading {name}, {size}, to know it by its content (once)"
        elif not told and time.monotonic() - began > _LONG_S:
            told.add("")
            text = "reading the weight files to know them by their content (once)"
        else:
            return
        say(console(stderr=True), f"  · {sanitize(text)}")

    return progress


def _plan(
    draft: Draft, inputs: Inputs, *, serve: bool, force: bool, cancel: threading.Event
) -> tuple[Plan, Facts]:
    from quantui.runtime.resolve import plan_for

    out = console(stderr=True)

    def tell(event: dict[str, object]) -> None:
        say(out, f"  · asking the engine what it supports: {sanitize(str(event.get('name', '')))}")

    return plan_for(draft, serve=serve, force=force, cancel=cancel, on_event=tell, inputs=inputs)


def run_plan(plan: Plan, cancel: threading.Event, *, hold: bool, as_json: bool) -> RunState:
    """Run ``plan`` with its events shown; prints the measurements and the error at the end."""
    from quantui.headless import JsonLines, Lines, follow, measurements
    from quantui.runtime.runner import Runner

    out = console(stderr=True)
    listener = JsonLines() if as_json else Lines(out)
    state = follow(Runner(plan, cancel, hold_server=hold).run(), listener)
    if not as_json:
        for line in measurements(state):
            say(out, "  " + sanitize(line))
    finished = state.finished
    if finished is not None and finished.outcome == "cancelled" and not as_json:
        say(out, "Cancelled. No process of the run is left.")
    elif finished is not None and finished.error is not None:
        from quantui.cli.output import print_error

        print_error(QuantuiError.from_dict(finished.error), as_json=as_json)
    if not as_json and state.directory:
        say(out, f"  record: {state.directory}")
    return state


def exit_code(state: RunState) -> int:
    """The run's exit code; a run without an end is a defect."""
    return state.finished.exit_code if state.finished else int(ExitCode.BUG)


def _print_check(plan: Plan, changed: list[str], *, as_json: bool) -> int:
    from quantui.runtime.made_before import made_before
    from quantui.runtime.plan_room import disks_of, too_little

    estimate = plan.estimate
    disks = disks_of(plan, made_before(plan))
    lacking = [disk for disk in disks if disk.lacks]
    code = ExitCode.DOES_NOT_FIT if lacking else ExitCode.OK
    if as_json:
        print_json(
            {
                "steps": [{"id": step.id, "title": step.title} for step in plan.steps],
                "differences": changed,
                "notices": list(plan.notices),
                "engine": {"name": plan.engine.name, "python": plan.engine.python},
                "estimate": {
                    "weight_bytes": estimate.weight_bytes,
                    "kv_cache_bytes": estimate.kv_cache_bytes,
                    "kv_cache_tokens": estimate.kv_cache_tokens,
                    "max_model_len": estimate.max_model_len,
                    "total_bytes": estimate.total_bytes,
                    "verdict": None if estimate.fit is None else estimate.fit.verdict,
                    "sources": dict(estimate.sources),
                },
                "disks": [
                    {
                        "folder": str(disk.folder),
                        "needed_bytes": disk.needed,
                        "free_bytes": disk.free,
                        "writes": [{"step": title, "bytes": size} for title, size in disk.writes],
                        "error": too_little(disk).to_dict() if disk.lacks else None,
                    }
                    for disk in disks
                ],
            }
        )
        return code
    out = console()
    say(
        out, f"engine    {plan.engine.name}, vLLM {plan.engine.vllm_version} ({plan.engine.origin})"
    )
    for step, reused in plan_steps(plan):
        say(out, f"step      {sanitize(step)}{' (made before: reused)' if reused else ''}")
    say(
        out,
        f"memory    weights {format_bytes(estimate.weight_bytes)}, "
        f"KV cache {format_bytes(estimate.kv_cache_bytes)} = {estimate.kv_cache_tokens} tokens, "
        f"context {estimate.max_model_len}",
    )
    for name, source in estimate.sources.items():
        if name != "verdict":
            say(out, f"          {name}: {sanitize(source)}")
    if estimate.fit is not None:
        say(out, f"verdict   {sanitize('; '.join(_verdict(estimate.fit)))}", indent=10)
    for disk in disks:
        verdict = "too little: " if disk.lacks else ""
        text = f"{format_bytes(disk.needed)} of {format_bytes(disk.free)} free ({disk.folder})"
        say(out, f"disk      {verdict}{sanitize(text)}", indent=10)
        for title, size in disk.writes:
            say(out, f"          {sanitize(title)}: {format_bytes(size)}")
        if disk.lacks:
            error = too_little(disk)
            for line in (*error.detail, error.fix):
                say(out, f"          {sanitize(line)}", indent=10)
    for notice in plan.notices:
        say(out, f"note      {sanitize(notice)}")
    for line in changed:
        say(out, f"differs   {sanitize(line)}")
    if not changed:
        say(out, "differs   nothing")
    return code


def _verdict(found: Fit) -> Iterator[str]:
    """The verdict with what it rests on; of a tight one also the change that would make it sure."""
    yield found.verdict
    yield from found.reasons
    change = found.smallest_change
    if change is not None:
        option = f"with {change.option} {change.value} " if change.option else ""
        yield f"{option}it would fit for sure: {change.text}"


def plan_steps(plan: Plan) -> list[tuple[str, bool]]:
    """(title, already made) of each step."""
    from quantui.runtime.made_before import made_before

    made = made_before(plan)
    return [(step.title, step.id in made) for step in plan.steps]


def print_commands(plan: Plan, *, as_json: bool) -> int:
    """What would be done: a shell line a step."""
    commands = plan.commands(program_name())
    if as_json:
        print_json([{"step": title, "command": line} for title, line in commands])
        return ExitCode.OK
    for title, line in commands:
        sys.stdout.write(f"# {sanitize(title)}\n{sanitize(line)}\n")
    return ExitCode.OK
