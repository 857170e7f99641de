"""``quantui demo``: the main job on a small model made here. No GPU, no Hub."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from quantui.cli.engine import ensure_engine
from quantui.cli.output import console, program_name, say
from quantui.cli.replay import exit_code, run_plan
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.terminal_text import one_line, sanitize

if TYPE_CHECKING:
    import argparse
    import threading

    from rich.console import Console

    from quantui.domain.draft import Draft, EngineChoice
    from quantui.domain.run_state import RunState
    from quantui.runtime.demo import DemoModel


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Train a small model and a LoRA adapter (once), merge them, serve the result with vLLM and "
        "bitsandbytes, ask it, and write a profile that replays it. Needs no GPU and no Hub."
    )
    parser.add_argument("--yes", "-y", action="store_true", help="make a missing engine unasked")
    parser.add_argument("--out", metavar="FILE", default="demo.toml", help="default: demo.toml")
    parser.add_argument(
        "--method", default="bitsandbytes", metavar="M", help="default: bitsandbytes"
    )
    parser.add_argument("--engine", default="auto", help="auto, vllm-cpu or vllm-cuda")
    parser.add_argument("--python", metavar="PATH", help="an interpreter that has vLLM")
    parser.add_argument("--json", action="store_true", help="events as JSON lines on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the demo; gives the exit code of the run."""
    from quantui.domain.draft import Draft, EngineChoice
    from quantui.domain.methods import method
    from quantui.engines.recording import with_record
    from quantui.headless import cancel_on_signals
    from quantui.runtime.last_profile import remember_profile
    from quantui.runtime.profile_file import save_profile
    from quantui.runtime.resolve import chosen_engine, plan_for

    method(args.method)
    engine_choice = EngineChoice(name=args.engine, python=args.python)
    with cancel_on_signals() as cancel:
        ensure_engine(Draft(engine=engine_choice), cancel=cancel, yes=args.yes)
        demo, code = _model(chosen_engine(engine_choice).python, cancel, as_json=args.json)
        if demo is None:
            return code
        draft = _draft(demo, engine_choice, args.method)
        plan, facts = plan_for(draft)
        state = run_plan(plan, cancel, hold=False, as_json=args.json)
    if exit_code(state) != ExitCode.OK:
        return exit_code(state)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path = Path(args.out)
    save_profile(path, with_record(draft, facts, plan, state, now))
    remember_profile(path, draft.title)
    if not args.json:
        tell(console(), demo.facts, state, path, program_name())
    return ExitCode.OK


def _model(python: str, cancel: threading.Event, *, as_json: bool) -> tuple[DemoModel | None, int]:
    """The demo's model, made if need be; None with the exit code when that failed."""
    from quantui.headless import JsonLines, Lines, follow
    from quantui.runtime.demo import find_demo, make_demo

    out = console(stderr=True)
    found = find_demo()
    if found is not None:
        if not as_json:
            say(out, f"✓ demo model: made before, reused from {sanitize(str(found.path))}")
        return found, ExitCode.OK
    state = follow(make_demo(python, cancel), JsonLines() if as_json else Lines(out))
    finished = state.finished
    if finished is not None and finished.error is not None:
        raise QuantuiError.from_dict(finished.error)
    return find_demo(), exit_code(state)


def _draft(demo: DemoModel, engine: EngineChoice, method: str) -> Draft:
    from quantui.domain.draft import (
        AdapterChoice,
        CheckChoice,
        Draft,
        ModelChoice,
        QuantizationChoice,
        ServeChoice,
    )

    return Draft(
        model=ModelChoice(id=str(demo.base)),
        adapter=AdapterChoice(id=str(demo.adapter)),
        quantization=QuantizationChoice(method=method),
        engine=engine,
        # Port 0: the demo never disturbs a server that is there. Eager: compiling a model this
        # small takes longer than everything else together.
        serve=ServeChoice(port=0, served_name="quantui-demo", enforce_eager=True),
        check=CheckChoice(
            prompt=demo.facts["example"]["prompt"],
            max_tokens=96,
            text=str(demo.path / "heldout_adapter.txt"),
        ),
    )


def tell(
    out: Console, made: dict[str, Any], state: RunState, path: Path, program: str = "quantui"
) -> None:
    """The adapter's effect, and what to do next; ``made`` is the demo's ``demo.json``."""
    example = made["example"]
    perplexity = made["perplexity"]
    served = {item.name: item.value for item in state.measured}
    out.print()
    say(out, "What the adapter does, on one prompt:")
    say(out, f"  prompt  {one_line(example['prompt'])}")
    say(out, f"  base    {shorten(one_line(example['base']), 160, placeholder=' …')}")
    if state.answer is not None:
        say(out, f"  merged  {one_line(state.answer.text)}")
    say(
        out,
        f"Perplexity on the adapter's held-out text: base {perplexity['base_on_heldout_adapter']}, "
        f"base + adapter {perplexity['adapter_on_heldout_adapter']} (transformers, float32)"
        + (f", merged and served {served['perplexity']:.2f}." if "perplexity" in served else "."),
    )
    out.print()
    name = sanitize(str(path))
    say(out, f"Wrote {name}. Next:")
    for command, what in (
        (f"{program} --profile {name}", "serve it again, until Ctrl-C; nothing is merged twice"),
        (f"{program} --profile {name} --dry-run", "the exact commands"),
        (program, "the wizard; p there replays this profile, and lets you talk to the model"),
        (f"{program} init MODEL --adapter YOURS", "a profile for your own model"),
    ):
        say(out, f"  {command}")
        say(out, f"      {what}")
