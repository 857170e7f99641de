"""``quantui recommend``: which method to serve a model with on a machine, for a use, and why."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from quantui.cli import progress
from quantui.cli import sizing_options as options
from quantui.cli.output import print_json, program_name
from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = """\
Rank the quantization methods that work for a model on a machine, each with
its memory, speed, loss of quality, what has to be done first, and reasons;
refuse the others, each with the reason. Checkpoints that somebody has
quantized already are looked for in the Hub cache and, unless --offline, on
the Hub. Nothing is downloaded but configs and tensor headers.
"""

_EPILOG = """\
exit codes: 0 something can be served; 3 nothing can (what comes closest is
told); others as `quantui --help` lists them.

--json prints one document; sizes are bytes, null is unknown. Keys are only
ever added:
  choices   rank, method, title, verdict ("fits", or "tight": it may not fit,
            or some users have to wait), memory (as `quantui fit --json`
            has it), max_context, max_users, reasons,
            cautions, cost (seconds, disk_bytes, download_bytes, steps), speed,
            quality, tensor_parallel, pipeline_parallel, gpus, ready, needs,
            way, variant, serve_adapter
  refused   method, reason, reasons, code, instead, source
  nearest, adapter_advice, use_case, context, users, model, adapter,
  hardware, vllm_version, notes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from quantui.domain.choosing.use_cases import DEFAULT_USE_CASE, use_cases

    parser.formatter_class = RawDescriptionHelpFormatter
    width = max(map(len, use_cases()))
    listed = "\n".join(
        f"  {name:<{width}}  {use.context} tokens, {use.users} user{'s' if use.users > 1 else ''}"
        for name, use in use_cases().items()
    )
    parser.description = _DESCRIPTION
    parser.epilog = f"use cases, and what they assume when nothing is said:\n{listed}\n\n{_EPILOG}"
    options.add_model_options(parser)
    parser.add_argument(
        "--use-case",
        metavar="U",
        default=DEFAULT_USE_CASE,
        help=f"what it is for, as listed below; default: {DEFAULT_USE_CASE}",
    )
    options.add_load_options(parser, default="the use case's", users="the use case's")
    options.add_machine_options(parser)
    options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answer, print, and give the exit code that ``--help`` lists."""
    from quantui.cli.recommend_report import print_recommendation
    from quantui.domain.choosing.use_cases import use_case
    from quantui.runtime.recommending import recommend_here

    use = use_case(args.use_case).name
    context = options.tokens(args, "--context")
    users = options.count(args, "--users", "requests")
    gpus = options.gpus(args)
    subject = options.look_at_subject(args)
    if subject.model.source != "folder" and not args.offline:
        progress.tell("looking for quantized copies of it on the Hub")
    answer = recommend_here(
        subject,
        use=use,
        context=context,
        users=users,
        gpus=gpus,
        offline=True if args.offline else None,
    )
    if args.json:
        print_json(answer.to_dict())
    else:
        print_recommendation(answer, program=program_name(), explain=args.explain)
    return ExitCode.OK if answer.recommendation.choices else ExitCode.DOES_NOT_FIT
