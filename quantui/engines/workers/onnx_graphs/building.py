"""Carry out onnxruntime-genai's model builder on a local folder, offline, for the CPU."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantizing import producing, progress
from quantui_wire import WorkerError
from quantui_wire import progress as report
from streaming_merge import checkpoint

from onnx_graphs import architectures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantizing.job import Job

_LAYER = re.compile(r"Reading layer (\d+)")


def rehearse(job: Job, folder: Path) -> None:
    """Let the builder read the config alone, so that what it stumbles over shows before any weight is read.

    ``folder``: where it may leave files for a moment.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        try:
            _create(job, Path(place), "fp32", {"config_only": "true"})
        # It raises whatever an unexpected config leads it to.
        except Exception as error:
            if producing.is_about_resources(error):
                raise
            raise architectures.unsupported(
                _architecture(job), f"Its model builder fails on the config: {_told(error)}."
            ) from error


def build(job: Job, folder: Path, precision: str, options: Mapping[str, str]) -> None:
    """Write ``model.onnx``, its data, ``genai_config.json`` and the tokenizer into ``folder``.

    ``precision`` is ``fp32`` or ``int4``; ``options`` are the builder's ``extra_options``.

    Raises:
        WorkerError: ``quantize.producer-failed``.
    """
    told = _Layers(_layers(checkpoint.read_config(job.model)))
    try:
        with contextlib.redirect_stdout(told), progress.follow_tqdm("tensors", _saved):
            _create(job, folder, precision, options)
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        import onnxruntime_genai

        raise WorkerError(
            "quantize.producer-failed",
            f"onnxruntime-genai {onnxruntime_genai.__version__} could not build {_architecture(job)} "
            f"as {precision}.",
            _told(error),
            "Choose another method. The log has the whole story.",
        ) from error


def _create(job: Job, folder: Path, precision: str, options: Mapping[str, str]) -> None:
    from onnxruntime_genai.models import builder

    source, out = str(job.model), str(folder)
    extra = [f"{name}={value}" for name, value in options.items()]
    extra += ["hf_token=false", f"hf_remote={str(job.trust_remote_code).lower()}"]
    # The cache folder is what a download would use, and is made all the same.
    given = (None, source, out, precision, "cpu", out)
    parsed = builder.parse_extra_options(*given, extra)
    builder.create_model(*given, **parsed)


def _architecture(job: Job) -> str:
    return str((checkpoint.read_config(job.model).get("architectures") or ["none"])[0])


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:400]


def _layers(config: dict[str, Any]) -> int | None:
    inner = config.get("text_config")
    count = (inner if isinstance(inner, dict) else config).get("num_hidden_layers")
    return count if isinstance(count, int) else None


def _saved(bar: Any) -> tuple[float, float, str] | None:  # noqa: ANN401 - tqdm has no stubs
    """What the builder's bar means: it names a tensor a time, and learns of their number late."""
    return (float(bar.n), float(bar.total), "save") if bar.total else None


class _Layers(io.TextIOBase):
    """Standard output that goes to the log, and tells of every layer the builder says that it reads."""

    def __init__(self, total: int | None) -> None:
        self._total = total

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        found = _LAYER.search(text)
        if found:
            report(int(found[1]) + 1, self._total, unit="layers", message="export")
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
