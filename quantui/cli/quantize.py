"""``quantui quantize``: a quantized checkpoint of a model, merged with its adapters or not, with proof."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from quantui.cli.making import draft_of, make_checkpoint
from quantui.cli.output import print_rows
from quantui.cli.replay import exit_code
from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.run_state import RunState

_DESCRIPTION = """\
Quantize a model, and prove that the result loads and what it cost: its
perplexity on held-out text is measured beside the 16-bit model's. LoRA
adapters are merged first. Without --out the result is kept among quantui's
own artifacts, where profiles find it too, and reused when the same is asked
for again.
"""

_EPILOG = """\
examples:
  quantui quantize Qwen/Qwen2.5-7B-Instruct --method awq
  quantui quantize ./base ./my-lora --method gptq --calibration ./chats.jsonl
  quantui quantize ./model --method w8a16 --out ./model-w8a16
  quantui quantize ./model --method awq --producer autoawq --group-size 64
  quantui quantize ./model --method fp8_dynamic --dry-run

`quantui methods` lists the methods, and who makes each.
"""

_FLAGS = {
    "method": "quantization.method",
    "producer": "quantization.producer",
    "bits": "quantization.bits",
    "group_size": "quantization.group_size",
    "mixed_bits": "quantization.mixed_bits",
    "format": "quantization.format",
    "rounding": "quantization.rounding",
    "ignore": "quantization.ignore",
    "calibration": "quantization.calibration",
    "samples": "quantization.calibration_samples",
    "length": "quantization.calibration_length",
    "seed": "quantization.calibration_seed",
    "device": "quantization.device",
    "proof_text": "quantization.proof_text",
    "max_loss": "quantization.max_loss",
}
"""Arguments that are options of a profile, by name; an argument that is left out leaves the profile's default."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from quantui.domain.draft import PRODUCERS

    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    where = "a folder, or a Hub id, also as ID@REVISION"
    parser.add_argument("model", metavar="MODEL", help=f"the 16-bit model: {where}")
    parser.add_argument(
        "adapters", metavar="ADAPTER", nargs="*", help="its LoRA adapters, as MODEL"
    )
    parser.add_argument("--method", metavar="M", required=True, help="the quantization method")
    parser.add_argument(
        "--producer",
        metavar="P",
        help=f"the library that makes it ({', '.join(PRODUCERS)}); default: the method's first",
    )
    parser.add_argument(
        "--bits", metavar="N", type=int, help="bits a weight; default: the method's"
    )
    parser.add_argument(
        "--group-size", metavar="N", type=int, help="weights that share a scale; -1: a whole row"
    )
    parser.add_argument("--asymmetric", action="store_true", help="with zero points")
    parser.add_argument(
        "--mixed-bits", metavar="N", type=int, help="AutoRound: 6 or 8 bit where 4 cost most"
    )
    parser.add_argument(
        "--format", metavar="F", help="AutoRound: what the checkpoint is written as"
    )
    parser.add_argument("--rounding", metavar="R", help="INT8 W8A8: gptq, or rtn, which is quicker")
    parser.add_argument(
        "--ignore",
        metavar="MODULE",
        action="append",
        help="leave a module in 16 bit, re: before a regular expression; default: lm_head",
    )
    parser.add_argument(
        "--calibration",
        metavar="SOURCE",
        help="texts: a .txt or .jsonl file, a folder, hub:OWNER/NAME; default: built-in ones",
    )
    parser.add_argument("--samples", metavar="N", type=int, help="how many of them; default: 128")
    parser.add_argument("--length", metavar="N", type=int, help="tokens of each; default: 512")
    parser.add_argument("--seed", metavar="N", type=int, help="which are drawn; default: 0")
    parser.add_argument("--device", metavar="D", help="auto, cpu or gpu; default: auto")
    parser.add_argument(
        "--proof-text", metavar="FILE", help="text for the perplexity; default: a built-in one"
    )
    parser.add_argument(
        "--max-loss",
        metavar="X",
        type=float,
        help="refuse the result when perplexity grows by more: 0.02 is 2 %%",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write it to this folder, which must not exist"
    )
    parser.add_argument("--recreate", action="store_true", help="quantize again though it exists")
    parser.add_argument(
        "--force", action="store_true", help="go on where it does not seem to fit or to be served"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and how")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="any other option of a profile, e.g. --set cleanup.after_run=delete-merged",
    )
    parser.add_argument("--yes", "-y", action="store_true", help="make missing engines unasked")
    parser.add_argument("--json", action="store_true", help="events as JSON lines on stdout")


def run(args: argparse.Namespace) -> int:
    """Quantize; gives the exit code of the run."""
    state = make_checkpoint(
        _draft(args),
        args.out,
        quantize=True,
        force=args.force,
        yes=args.yes,
        as_json=args.json,
        dry_run=args.dry_run,
    )
    if state is None:
        return ExitCode.OK
    if exit_code(state) == ExitCode.OK and not args.json:
        _tell(state)
    return exit_code(state)


def _draft(args: argparse.Namespace) -> Draft:
    """The draft that the arguments describe: what a profile with these options would be."""
    from quantui.runtime.models import split_revision

    model, revision = split_revision(args.model)
    first, *others = args.adapters or [None]
    adapter, adapter_revision = (None, None) if first is None else split_revision(first)
    options = {
        "model.id": model,
        "model.revision": revision,
        "adapter.id": adapter,
        "adapter.revision": adapter_revision,
        "adapter.also": others,
        **{option: getattr(args, name) for name, option in _FLAGS.items()},
        "quantization.symmetric": False if args.asymmetric else None,
        "quantization.recreate": args.recreate,
    }
    return draft_of(options, args.assignments, name="quantui quantize")


def _tell(state: RunState) -> None:
    """The result and its proof, on stdout."""
    from quantui.domain.quantize_report import quantize_rows

    step = state.step("quantize")
    if step is None:
        return
    reused = " (made before)" if step.result.get("reused") else ""
    print_rows([("path", f"{step.result['path']}{reused}"), *quantize_rows(step.result)])
