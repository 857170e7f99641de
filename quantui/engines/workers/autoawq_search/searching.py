"""AutoAWQ's search on calibration samples, and the writing of what it found."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_compressor_recipes import precision
from peft_merging import side_files
from quantizing import models, producing, progress
from quantui_wire import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from quantizing.job import Job
    from streaming_merge.checkpoint import Checkpoint

TOGETHER = 8
"""Samples that go through a layer at once: a layer's outputs of all of them are kept, its inner tensors
are not."""


CACHES = ("past_key_values", "past_key_value", "use_cache")


def search(
    job: Job,
    model: Any,  # noqa: ANN401 - transformers and AutoAWQ have no stubs
    tokenizer: Any,  # noqa: ANN401
    ids: Sequence[Sequence[int]],
) -> tuple[Any, str]:
    """Quantize ``model`` in place; AutoAWQ's wrapper of it, and the library call in short.

    Raises:
        WorkerError: ``quantize.producer-failed``.
    """
    from awq.models._config import AwqConfig
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP

    kind = model.config.model_type
    model.config.get_text_config().use_cache = False
    wrapped = AWQ_CAUSAL_LM_MODEL_MAP[kind](
        model,
        kind,
        is_quantized=False,
        config=model.config,
        quant_config=AwqConfig(),
        processor=None,
    )
    group = job.recipe.group_size or 128
    settings = {"zero_point": True, "q_group_size": group, "w_bit": 4, "version": "GEMM"}
    length = min(max(map(len, ids)), sum(map(len, ids)))
    try:
        with progress.follow_tqdm():
            wrapped.quantize(
                tokenizer,
                quant_config=settings,
                calib_data=[list(row) for row in ids],
                max_calib_samples=len(ids),
                # Samples are joined and cut to this; longer ones would be dropped.
                max_calib_seq_len=length,
                quantizer_cls=quantizer(),
            )
    # The library raises what it likes, and so does a model's own code.
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise WorkerError(
            "quantize.producer-failed",
            f"AutoAWQ 0.2.9 could not quantize {type(model).__name__}.",
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:400],
            "Choose llm-compressor as the producer. The log has the whole story.",
        ) from error
    return (
        wrapped,
        f"AutoAWQForCausalLM.quantize({settings}, {len(ids)} samples of {length} tokens)",
    )


def quantizer() -> Any:  # noqa: ANN401
    """AutoAWQ's quantizer, with a few samples at a time that have the masks that are theirs.

    The library (awq/quantize/quantizer.py, _module_forward) gives every part of the samples the whole
    attention mask, which only fits where a model needs none.
    """
    import torch
    from awq.quantize.quantizer import AwqQuantizer

    class Quantizer(AwqQuantizer):  # type: ignore[misc]
        def _module_forward(self, x: Any, module: Any, module_kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
            rows, found = x.shape[0], []
            with torch.no_grad():
                for start in range(0, rows, TOGETHER):
                    part = slice(start, start + TOGETHER)
                    given = module(x[part], **_of(module_kwargs, part, rows))
                    found.append(given[0] if isinstance(given, tuple) else given)
            return torch.cat(found)

    return Quantizer


def _of(arguments: Mapping[str, Any], part: slice, rows: int) -> dict[str, Any]:
    """``arguments`` for the samples in ``part`` of ``rows``; what has no row a sample is for all.

    A cache would keep the keys of every earlier pass through the layer, and the next would see them.
    """
    import torch

    def cut(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, tuple):
            return tuple(cut(one) for one in value)
        if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[0] == rows > 1:
            return value[part]
        return value

    return {name: cut(value) for name, value in arguments.items() if name not in CACHES}


@contextmanager
def computing_in_float32(model: Any, *, wanted: bool) -> Iterator[None]:  # noqa: ANN401
    """The 16-bit parameters of ``model`` are float32 inside the block; what is left of them is not after."""
    was = precision.widen(model) if wanted else {}
    yield
    precision.narrow(model, was)


def save(wrapped: Any, source: Checkpoint, folder: Path) -> None:  # noqa: ANN401
    """Write the quantized weights, the source's config with how they are quantized, and all else it has."""
    import transformers

    # Some that transformers reads it refuses to write; the source's file is copied.
    wrapped.model.generation_config = transformers.GenerationConfig()
    with models.saving(folder, source.bytes):
        wrapped.save_quantized(str(folder))
    packed = wrapped.quant_config.to_transformers_dict()
    side_files.write_config(source.config, {"quantization_config": packed}, folder)
    side_files.copy_side_files(source.folder, source.folder, folder, "base")
