"""Run llm-compressor's modifiers on a model, with or without calibration samples."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantizing import producing, progress
from quantui_wire import WorkerError

from llm_compressor_recipes.layers import Layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantizing.job import Job


def run(
    job: Job,
    model: Any,  # noqa: ANN401 - transformers and llm-compressor have no stubs
    modifiers: Sequence[Any],
    ids: Sequence[Sequence[int]] | None,
    tokenizer: Any,  # noqa: ANN401
    doing: str,
) -> None:
    """Apply ``modifiers`` to ``model``, calibrated on ``ids`` layer by layer where they need it.

    One layer's inputs of all samples are in memory at a time; on a card they and the layers that do not
    compute wait in RAM (llm-compressor's sequential pipeline). Samples go through one by one.

    Raises:
        WorkerError: ``quantize.producer-failed``.
    """
    from llmcompressor import oneshot

    searches = any(type(one).__name__ == "AWQModifier" for one in modifiers)
    data = {} if ids is None else {"dataset": loader(ids)}
    try:
        with pageable_memory(), progress.follow_tqdm(read=Layers(doing, searches=searches)):
            oneshot(
                model=model,
                recipe=list(modifiers),
                processor=tokenizer,
                trust_remote_code_model=job.trust_remote_code,
                **data,
            )
    # The library raises what it likes, and so does a model's own code.
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise failed(job, model, error) from error


def loader(ids: Sequence[Sequence[int]]) -> Any:  # noqa: ANN401
    """A torch DataLoader of one sample a batch, in order: llm-compressor then leaves the data alone."""
    import torch

    samples = [
        {
            "input_ids": torch.tensor([row]),
            "attention_mask": torch.ones(1, len(row), dtype=torch.long),
        }
        for row in ids
    ]
    return torch.utils.data.DataLoader(samples, batch_size=None)


@contextmanager
def pageable_memory() -> Iterator[None]:
    """Let AWQ keep its samples in ordinary memory where there is no accelerator.

    It pins them for copies to a card, and pinning raises without one (llm-compressor 0.14,
    modifiers/transform/awq/base.py, _apply_smoothing).
    """
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        yield
        return
    pin = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda *_: None
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = pin


def failed(job: Job, model: Any, error: Exception) -> WorkerError:  # noqa: ANN401
    """The error of a library that gave up."""
    import llmcompressor

    said = (str(error).strip().splitlines() or [""])[0]
    return WorkerError(
        "quantize.producer-failed",
        f"llm-compressor {llmcompressor.__version__} could not make {job.recipe.method} of "
        f"{type(model).__name__}.",
        f"{type(error).__name__}: {said}"[:400],
        "Choose another method or producer. The log has the whole story.",
    )
