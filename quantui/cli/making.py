"""What the commands that make a checkpoint share: from arguments to a draft, and from a draft to what was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.cli.engine import ensure_engines
from quantui.cli.output import console, say
from quantui.cli.replay import print_commands, run_plan, tell_of_large_files
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.draft import Draft
    from quantui.domain.run_state import RunState


def draft_of(options: Mapping[str, object], assignments: list[str], *, name: str) -> Draft:
    """The draft with these options of a profile (None leaves the default), then ``--set``; ``name`` for messages."""
    from quantui.domain.draft import Draft
    from quantui.domain.profile import apply_overrides, check_together, set_option

    draft = Draft()
    for path, value in options.items():
        section, _, key = path.partition(".")
        if value is not None:
            draft = set_option(draft, section, key, value, name=name)
    check_together(draft, name=name)
    return apply_overrides(draft, assignments)


def make_checkpoint(
    draft: Draft,
    out: str | None,
    *,
    quantize: bool,
    force: bool,
    yes: bool,
    as_json: bool,
    dry_run: bool = False,
) -> RunState | None:
    """Merge, and ``quantize``, what ``draft`` describes, with its events shown; None where ``dry_run`` only tells."""
    from quantui.headless import cancel_on_signals, interrupt_on_signals
    from quantui.runtime.making_places import folder_to_make
    from quantui.runtime.resolve import look_up, needed_engines, plan_for

    folder = folder_to_make(out, subject="quantize" if quantize else "merge")
    with interrupt_on_signals():
        inputs = look_up(draft, serve=False, make=quantize, progress=tell_of_large_files())
    with cancel_on_signals() as cancel:
        if not dry_run:
            needs = needed_engines(draft, inputs, serve=False)
            ensure_engines(needs.each, cancel=cancel, yes=yes)
        plan, _ = plan_for(
            draft, serve=False, make=quantize, force=force, inputs=inputs, out=folder
        )
        if not dry_run:
            return run_plan(plan, cancel, hold=False, as_json=as_json)
    for notice in plan.notices if not as_json else ():
        say(console(stderr=True), f"  · {sanitize(notice)}")
    print_commands(plan, as_json=as_json)
    return None
