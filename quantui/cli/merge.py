"""``quantui merge``: LoRA adapters merged into their base, with proof."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.cli.making import draft_of, make_checkpoint
from quantui.cli.output import console, print_json, print_rows, say
from quantui.cli.replay import exit_code, tell_of_large_files
from quantui.domain.errors import ExitCode
from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.run_state import RunState

_DESCRIPTION = """\
Merge LoRA adapters into their base and prove the result. The weights are
streamed: memory does not grow with the model. Without --out the result is
kept among quantui's own artifacts, where profiles find it too, and reused
when the same is asked for again.
"""

_EPILOG = """\
examples:
  quantui merge Qwen/Qwen2.5-7B-Instruct ./my-lora
  quantui merge ./base ./my-lora --out ./merged
  quantui merge ./base ./chat ./style --weight 1 0.5
  quantui merge ./base ./my-lora --discard
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    where = "a folder, or a Hub id, also as ID@REVISION"
    parser.add_argument("base", metavar="BASE", help=f"the 16-bit base model: {where}")
    parser.add_argument("adapters", metavar="ADAPTER", nargs="+", help="its LoRA adapters, as BASE")
    parser.add_argument(
        "--weight",
        metavar="W",
        dest="weights",
        nargs="+",
        action="extend",
        type=float,
        default=[],
        help="how much of each adapter goes in; default: 1 each",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write it to this folder, which must not exist"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--verify",
        choices=("fast", "logits"),
        default="fast",
        help="logits: compare its answers with unmerged PEFT's too; default: fast",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
        default="auto",
        help="type of the result; default: the base's own",
    )
    parser.add_argument(
        "--tokenizer-from",
        choices=("auto", "base", "adapter"),
        default="auto",
        help="default: the adapter's where it has one",
    )
    parser.add_argument("--recreate", action="store_true", help="merge again though it exists")
    parser.add_argument(
        "--discard",
        action="store_true",
        help="do not merge: give back the space of an unfinished merge of these",
    )
    parser.add_argument("--python", metavar="PATH", help="an interpreter that has torch and peft")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="any other option of a profile, e.g. --set model.trust_remote_code=true",
    )
    parser.add_argument("--yes", "-y", action="store_true", help="make a missing engine unasked")
    parser.add_argument("--json", action="store_true", help="events as JSON lines on stdout")


def run(args: argparse.Namespace) -> int:
    """Merge; gives the exit code of the run."""
    draft = _draft(args)
    if args.discard:
        out = None if args.out is None else Path(args.out).expanduser().absolute()
        return _discard(draft, out, as_json=args.json)
    # Forced: what does not fit here in 16 bit may be served elsewhere, or quantized.
    state = make_checkpoint(
        draft, args.out, quantize=False, force=True, yes=args.yes, as_json=args.json
    )
    if state is None:
        return ExitCode.OK
    if exit_code(state) == ExitCode.OK and not args.json:
        _tell(state)
    return exit_code(state)


def _draft(args: argparse.Namespace) -> Draft:
    """The draft that the arguments describe: what a profile with these options would be."""
    from quantui.runtime.models import split_revision

    base, base_revision = split_revision(args.base)
    adapter, adapter_revision = split_revision(args.adapters[0])
    options = {
        "model.id": base,
        "model.revision": base_revision,
        "adapter.id": adapter,
        "adapter.revision": adapter_revision,
        "adapter.also": args.adapters[1:],
        "adapter.weights": args.weights,
        "merge.device": args.device,
        "merge.verify": args.verify,
        "merge.dtype": args.dtype,
        "merge.tokenizer_from": args.tokenizer_from,
        "merge.recreate": args.recreate,
        "engine.python": args.python,
    }
    return draft_of(options, args.assignments, name="quantui merge")


def _tell(state: RunState) -> None:
    """The result and its proof, on stdout."""
    from quantui.domain.merge_report import merge_rows
    from quantui.runtime.made_records import delta_norms, read_proof

    step = state.step("merge")
    if step is None:
        return
    result = step.result
    path = Path(str(result["path"]))
    reused = " (made before)" if result.get("reused") else ""
    rows = [
        ("path", f"{path}{reused}"),
        ("size", format_bytes(result.get("bytes"))),
        *merge_rows(result, delta_norms(read_proof(path))),
    ]
    print_rows(rows)


def _discard(draft: Draft, out: Path | None, *, as_json: bool) -> int:
    """Give back the space of unfinished merges; what goes is told before it goes."""
    from quantui.engines.merge_planning import merge_inputs
    from quantui.headless import interrupt_on_signals
    from quantui.runtime.artifacts import ArtifactStore
    from quantui.runtime.resolve import look_up
    from quantui.runtime.unfinished import discard_unfinished

    if out is not None:
        inputs = {"out": str(out)}
    else:
        with interrupt_on_signals():
            found = look_up(draft, serve=False, progress=tell_of_large_files())
        inputs = merge_inputs(draft, found.model, found.adapters)
    gone = []
    for left in discard_unfinished(ArtifactStore(), inputs):
        if not as_json:
            say(console(), f"discarding {sanitize(str(left.path))}, {format_bytes(left.bytes)}")
        gone.append(left)
    if as_json:
        print_json(
            {
                "discarded": [{"path": str(left.path), "bytes": left.bytes} for left in gone],
                "bytes": sum(left.bytes for left in gone),
            }
        )
    elif not gone:
        say(console(), "There is no unfinished merge of these: nothing to discard.")
    return ExitCode.OK
