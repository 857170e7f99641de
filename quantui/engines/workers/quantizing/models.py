"""Load the 16-bit model and its tokenizer, after asking whether there is memory for it."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_merging import base
from quantui_wire import WorkerError
from streaming_merge import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantizing.job import ModelJob


def load_model(job: ModelJob, *, dtype: str = "auto", **kwargs: Any) -> Any:  # noqa: ANN401 - transformers has no stubs
    """The job's model on the job's device, in evaluation mode, with progress in bytes.

    The class is the one its config names, so that a vision model keeps its vision part. ``dtype``:
    ``auto`` (the checkpoint's own) or a name of torch's. ``kwargs`` go to ``from_pretrained``.

    Raises:
        WorkerError: ``quantize.unknown-architecture``, ``quantize.not-enough-memory``,
            ``model.damaged``, ``model.bad-config``, ``merge.quantized-base``.
    """
    import torch
    import transformers
    from peft_merging.loading import reporting, resident_growth
    from safetensors import SafetensorError

    quiet(transformers)
    source = checkpoint.read_checkpoint(job.model)
    check_memory(job, source.bytes, "Loading the model")
    loader = model_class(source.config, trust_remote_code=job.trust_remote_code)
    # `dtype` is `torch_dtype` in transformers before 4.56, which would drop the new name in silence.
    named = "dtype" if _version(transformers) >= (4, 56) else "torch_dtype"
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    if job.on_gpu:
        kwargs.setdefault("device_map", {"": job.device})
    try:
        with reporting(source.bytes, resident_growth()):
            model, report = loader.from_pretrained(
                job.model,
                **{named: wanted},
                trust_remote_code=job.trust_remote_code,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **kwargs,
            )
    except SafetensorError as error:
        raise checkpoint.damaged(job.model, error) from error
    problems = [str(key) for key in (*report["missing_keys"], *report["mismatched_keys"])]
    if problems:
        raise checkpoint.damaged(
            job.model, f"{len(problems)} weights are missing or misshapen: {problems[:3]}"
        )
    return model.eval()


def model_class(config: dict[str, Any], *, trust_remote_code: bool) -> Any:  # noqa: ANN401
    """transformers' class for ``config``.

    Raises:
        WorkerError: ``quantize.unknown-architecture``.
    """
    import transformers

    architecture = str((config.get("architectures") or ["none"])[0])
    if trust_remote_code and "auto_map" in config:
        return transformers.AutoModelForCausalLM
    loader = getattr(transformers, architecture, None)
    if loader is None or not hasattr(loader, "from_pretrained"):
        raise WorkerError(
            "quantize.unknown-architecture",
            f"transformers {transformers.__version__} does not know {architecture}.",
            "It is newer than this engine, or its code lies beside its weights.",
            "Choose another producer, update the engine, or allow the model's own code "
            "(trust_remote_code) if you trust it.",
            exit_code=3,
        )
    return loader


def load_tokenizer(job: ModelJob) -> Any:  # noqa: ANN401
    """The tokenizer beside the model's weights.

    Raises:
        WorkerError: ``quantize.no-tokenizer``.
    """
    import transformers

    failed = None
    # transformers before 5 does not know the class that version 5 names in tokenizer_config.json; the class
    # of every tokenizer.json reads it.
    for kind in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        trust = {"trust_remote_code": True} if job.trust_remote_code else {}
        try:
            return kind.from_pretrained(job.model, local_files_only=True, **trust)
        # A tokenizer of another version, or a model's own code, can raise anything.
        except Exception as error:  # noqa: BLE001
            failed = failed or error
    raise WorkerError(
        "quantize.no-tokenizer",
        f"transformers {transformers.__version__} cannot load the tokenizer in {job.model}.",
        f"{type(failed).__name__}: {failed}"[:400],
        "Check that the tokenizer's files (tokenizer.json, tokenizer_config.json) lie beside the weights, "
        "and that the engine is new enough for them.",
        exit_code=2,
    ) from failed


def check_memory(job: ModelJob, needed_bytes: int, what: str) -> None:
    """Refuse work that needs more memory of the job's device than is free there.

    Added to ``needed_bytes``: what the libraries take in RAM, or a CUDA context on the card.

    Raises:
        WorkerError: ``quantize.not-enough-memory``; the next device may have enough.
    """
    if job.on_gpu:
        import torch

        free = int(torch.cuda.mem_get_info(job.device)[0])
        place, needed = job.device, needed_bytes + base.ON_CARD
    else:
        free = free_ram(job.memory_limit_bytes)
        place, needed = "RAM", needed_bytes + base.LIBRARIES
    if free < needed:
        raise WorkerError(
            "quantize.not-enough-memory",
            f"{what} needs about {needed / 1e9:.2f} GB of {place}.",
            f"{free / 1e9:.2f} GB are free.",
            "Close other programs, quantize on another device or machine, or choose a method that "
            "does not load the model (fp8_dynamic).",
            exit_code=3,
        )


def free_ram(limit: int | None) -> int:
    """Bytes of RAM this process may still take: the machine's, its control group's, its own limits'."""
    free = base.available_bytes(limit)
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    size, data = (int(pages[place]) * resource.getpagesize() for place in (0, 5))
    for kind, used in ((resource.RLIMIT_AS, size), (resource.RLIMIT_DATA, data)):
        allowed = resource.getrlimit(kind)[0]
        if allowed != resource.RLIM_INFINITY:
            free = min(free, max(0, allowed - used))
    return free


@contextmanager
def saving(folder: Path, expected_bytes: int) -> Iterator[None]:
    """Report the bytes that lie in ``folder`` while the block writes them."""
    from peft_merging.loading import reporting

    def written() -> int:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    with reporting(max(1, expected_bytes), written):
        yield


def quiet(transformers: Any) -> None:  # noqa: ANN401
    """Keep transformers' own bars out of the way: progress is told in bytes."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _version(transformers: Any) -> tuple[int, int]:  # noqa: ANN401
    major, minor = transformers.__version__.split(".")[:2]
    return int(major), int(minor)
