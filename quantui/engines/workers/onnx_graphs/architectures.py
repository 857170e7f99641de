"""Which models ONNX Runtime's builder knows, by its own source."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from quantui_wire import WorkerError
from streaming_merge import checkpoint

if TYPE_CHECKING:
    from quantizing.job import Job

_BRANCH = re.compile(r'config\.architectures\[0\] == "(\w+)"')
_NO_DECODER_ON_CPU = frozenset({"PhiMoEForCausalLM", "WhisperForConditionalGeneration"})
"""The builder makes the first for CUDA whatever it is asked; the second hears speech."""


def known() -> frozenset[str]:
    """Architectures that ``create_model`` (onnxruntime-genai, models/builder.py) has a branch for."""
    package = importlib.util.find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        return frozenset()
    source = Path(package.origin).parent / "models/builder.py"
    return frozenset(_BRANCH.findall(source.read_text(encoding="utf-8"))) - _NO_DECODER_ON_CPU


def refuse_unknown(job: Job) -> None:
    """Refuse a model that the builder would refuse, or that is quantized already.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``merge.quantized-base``, ``model.bad-config``.
    """
    config = checkpoint.read_config(job.model)
    checkpoint.refuse_quantized(config, job.model)
    architecture = str((config.get("architectures") or ["none"])[0])
    if architecture not in known():
        raise unsupported(architecture, "Its model builder has no graph for it.")


def unsupported(architecture: str, why: str) -> WorkerError:
    """The error of a model that no graph can be made of."""
    import onnxruntime_genai

    return WorkerError(
        "quantize.unsupported-architecture",
        f"onnxruntime-genai {onnxruntime_genai.__version__} makes no ONNX model of {architecture}.",
        why,
        "Choose another method; `quantui methods` lists those that vLLM serves.",
        exit_code=3,
    )
