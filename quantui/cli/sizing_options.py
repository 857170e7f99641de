"""The options that `quantui fit` and `quantui recommend` share: model, load, machine, output.

Values stay texts until :mod:`quantui.domain.quantities` reads them: its errors name the option and give a
fix, which argparse's do not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quantui.domain import quantities

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from quantui.runtime.subject import Subject

_T = TypeVar("_T")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What is looked at: the model, and the adapter that would be served with it."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder (config.json is enough; with the weights or their index it is exact), or a "
        "Hub id: only configs and tensor headers are fetched",
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")
    parser.add_argument("--adapter", metavar="A", help="folder or Hub id of a LoRA adapter")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")


def add_load_options(parser: argparse.ArgumentParser, *, default: str, users: str = "1") -> None:
    """What the server has to hold; ``default`` and ``users`` say what is assumed."""
    group = parser.add_argument_group("load")
    group.add_argument(
        "--context",
        metavar="N",
        help="tokens of a request, prompt and answer: 8192, 32k (32000), 32K (32768); "
        f"default: {default}",
    )
    group.add_argument(
        "--users", metavar="N", help="requests of that length at the same time; default: " + users
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Where it is to run."""
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--gpus", metavar="0,1", help="only these, by `quantui doctor`'s numbers; none: the CPU"
    )
    group.add_argument(
        "--hardware",
        metavar="FILE",
        help="another machine, as its `quantui doctor --json` describes it; - is standard input",
    )
    group.add_argument(
        "--vllm-version", metavar="V", help="default: the installed engine's, else the locked one"
    )
    group.add_argument(
        "--probe-engine",
        action="store_true",
        help="ask the installed engine what it supports (20 to 30 s once, then kept)",
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """How it is told."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    group.add_argument(
        "--explain", action="store_true", help="also the formula, inputs and source of everything"
    )


def tokens(args: argparse.Namespace, option: str) -> int | None:
    """The number of tokens that ``option`` gives; None when it is not given."""
    return _given(args, option, lambda text: quantities.tokens(option, text))


def count(
    args: argparse.Namespace, option: str, what: str, *, most: int = quantities.MOST_USERS
) -> int | None:
    """The whole number that ``option`` gives."""
    return _given(args, option, lambda text: quantities.count(option, text, what, most=most))


def fraction(args: argparse.Namespace, option: str) -> float | None:
    """The part of a GPU's memory that ``option`` gives."""
    return _given(args, option, lambda text: quantities.fraction(option, text))


def gpus(args: argparse.Namespace) -> tuple[int, ...] | None:
    """The GPUs of ``--gpus``, in its order."""
    return _given(args, "--gpus", lambda text: quantities.gpu_indices("--gpus", text))


def vllm_version(args: argparse.Namespace) -> str | None:
    """The version of ``--vllm-version``."""
    return _given(args, "--vllm-version", lambda text: quantities.version("--vllm-version", text))


def look_at_subject(args: argparse.Namespace) -> Subject:
    """The model, adapter, machine and vLLM that the arguments name; a terminal is told what takes time."""
    from quantui.cli import progress
    from quantui.runtime.subject import look_at

    version = vllm_version(args)
    if not _is_folder(args.model):
        progress.tell(f"looking up {args.model}: configs and tensor headers")
    return look_at(
        args.model,
        revision=args.revision,
        adapter=args.adapter,
        hardware=args.hardware,
        vllm_version=version,
        offline=True if args.offline else None,
        on_cpu=gpus(args) == (),
        probe_engine=args.probe_engine,
        progress=progress.hashing(),
        on_event=progress.asking_engine(),
    )


def _is_folder(ref: str) -> bool:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        return Path(ref).expanduser().is_dir()
    return False


def flag(name: str) -> str:
    """The attribute that argparse gives the option ``name``."""
    return name.removeprefix("--").replace("-", "_")


def _given(args: argparse.Namespace, option: str, read: Callable[[str], _T]) -> _T | None:
    text = getattr(args, flag(option))
    return None if text is None else read(text)
