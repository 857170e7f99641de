"""``quantui fit``: what a model takes on a machine with one method, and the context and users that leaves room for."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from quantui.cli import sizing_options as options
from quantui.cli.output import print_json
from quantui.domain import quantities
from quantui.domain.choosing.adapter_advice import LORA_RANKS
from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    import argparse

    from quantui.domain.fitting.fit import FitRequest

MOST_LORAS = 10_000

_DESCRIPTION = """\
Say what a model takes on a machine with one quantization method: weights,
KV cache, peak of activations, CUDA graphs, what else is on the card; whether
that fits, the longest context, and the smallest change that makes it fit.
Nothing is downloaded but configs and tensor headers, and nothing is started.
"""

_EPILOG = """\
verdicts:
  fits          with all uncertainty of the estimate
  tight         expected to fit, but within the estimate's uncertainty
  does not fit  the smallest change that would help is told
  unsupported   this method, card, model and vLLM do not go together

exit codes: 0 fits or tight; 3 does not fit, or unsupported (the answer is
printed all the same); others as `quantui --help` lists them.

--json prints one document; sizes are bytes of one GPU (of RAM on the CPU),
null is unknown. Keys are only ever added:
  verdict, reasons, smallest_change, weights_bytes_per_gpu,
  kv_cache_bytes_per_gpu, kv_cache_tokens, kv_bytes_per_token,
  peak_activation_bytes, cuda_graph_bytes, context_bytes, lora_bytes,
  other_processes_bytes, utilization, max_context, context, max_users, users,
  figures (each with bytes, low, high, formula, source), method, hardware,
  tensor_parallel, pipeline_parallel, gpus, vllm_version, model, adapter, notes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_model_options(parser)
    parser.add_argument(
        "--method",
        metavar="M",
        default="none",
        help="quantization method, as `quantui recommend` names them; default: none, the checkpoint "
        "as it is",
    )
    options.add_load_options(parser, default="what the memory allows")
    _add_server_options(parser)
    options.add_machine_options(parser)
    options.add_output_options(parser)


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("vLLM's options")
    group.add_argument(
        "--tp", metavar="N", help="GPUs that share each layer (tensor parallel); default: 1"
    )
    group.add_argument(
        "--pp",
        metavar="N",
        help="stages of a part of the layers each (pipeline parallel); default: 1",
    )
    group.add_argument("--max-num-seqs", metavar="N", help="most requests in one batch")
    group.add_argument("--max-num-batched-tokens", metavar="N", help="most tokens in one batch")
    group.add_argument(
        "--utilization", metavar="F", help="part of each GPU's memory for vLLM, such as 0.9"
    )
    group.add_argument("--kv-dtype", metavar="D", default="auto", help="of the KV cache: auto, fp8")
    group.add_argument("--dtype", metavar="D", default="auto", help="of what is not quantized")
    group.add_argument("--eager", action="store_true", help="without CUDA graphs")
    group.add_argument("--max-loras", metavar="N", help="LoRA adapters in one batch")
    group.add_argument("--max-lora-rank", metavar="N", help="their highest rank")


def run(args: argparse.Namespace) -> int:
    """Answer, print, and give the exit code that ``--help`` lists."""
    from quantui.cli.fit_report import print_fit
    from quantui.domain.methods import method
    from quantui.runtime.fitting import fit_here

    chosen, request, gpus = method(args.method), request_of(args), options.gpus(args)
    answer = fit_here(options.look_at_subject(args), chosen, request, gpus)
    if args.json:
        print_json(answer.to_dict())
    else:
        print_fit(answer, explain=args.explain)
    works = answer.verdict in ("fits", "tight")
    return ExitCode.OK if works else ExitCode.DOES_NOT_FIT


def request_of(args: argparse.Namespace) -> FitRequest:
    """What the arguments ask for; a bad value is a QuantuiError that names its option."""
    from quantui.domain.fitting.fit import FitRequest
    from quantui.domain.fitting.placement import lora_slots

    loras = options.count(args, "--max-loras", "adapters", most=MOST_LORAS)
    rank = options.count(args, "--max-lora-rank", "ranks", most=LORA_RANKS[-1])
    return FitRequest(
        context=options.tokens(args, "--context"),
        users=options.count(args, "--users", "requests") or 1,
        tensor_parallel=options.count(args, "--tp", "GPUs", most=quantities.MOST_RANKS) or 1,
        pipeline_parallel=options.count(args, "--pp", "stages", most=quantities.MOST_RANKS) or 1,
        max_num_seqs=options.count(args, "--max-num-seqs", "requests"),
        max_num_batched_tokens=options.tokens(args, "--max-num-batched-tokens"),
        utilization=options.fraction(args, "--utilization"),
        kv_dtype=quantities.choice("--kv-dtype", args.kv_dtype, quantities.KV_DTYPES),
        dtype=quantities.choice("--dtype", args.dtype, quantities.DTYPES),
        eager=args.eager,
        lora_slots=lora_slots(loras, rank),
    )
