"""The step that merges: what goes in, on which devices, and what the result is known by. Pure."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from quantui.domain.caches.made_from import Ingredient, MadeFrom
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.four_bit import sixteen_bit_base
from quantui.domain.models import DTYPE_BITS
from quantui.domain.plan import ArtifactKey, MergeStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.draft import Draft
    from quantui.domain.hardware import Gpu
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.engines.planning import Facts

MERGE_PRODUCER = "merge_adapter/1"
"""Changes when the same inputs would give other bytes: older artifacts are then not reused."""

MERGE_GPU_BYTES = 2 * 1024**3
"""Free memory that a GPU needs to be tried: CUDA's own half a GiB, and blocks of the largest tensors."""

_BITS = {"bfloat16": 16, "float16": 16, "float32": 32}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def merge_step(
    draft: Draft, facts: Facts, gpus: tuple[Gpu, ...], *, out: str | None = None
) -> MergeStep:
    """Merge the facts' adapters into their base: an artifact, or the folder ``out`` of the user's.

    Raises QuantuiError ``merge.quantized-base`` and ``merge.no-gpu``.
    """
    model, adapters = facts.model, facts.adapters
    if model.quantization:
        better = sixteen_bit_base(model.ref)
        raise QuantuiError(
            "merge.quantized-base",
            f"{model.ref} is quantized ({model.quantization}); an adapter is not merged into it.",
            "Rounding the sum to a few bits loses the adapter's small changes.",
            f"Give the 16-bit base{f', {better},' if better else ''} in its place, also for an adapter "
            "that was trained in 4 bit.",
        )
    key = ArtifactKey(
        # Not the name it is served under: that is no input of a merge.
        base=model_name(facts),
        kind="merged",
        inputs={
            **merge_inputs(draft, model, adapters),
            "producer": MERGE_PRODUCER,
            "peft": facts.merge_engine.versions.get("peft", "unknown"),
            "transformers": facts.merge_engine.versions.get("transformers", "unknown"),
            "verify": draft.merge.verify,
            "dtype": draft.merge.dtype,
            "tokenizer": draft.merge.tokenizer_from,
        },
    )
    names = " and ".join(PurePath(adapter.ref).name for adapter in adapters)
    return MergeStep(
        id="merge",
        title=f"merge {names} into {PurePath(model.ref).name}",
        argv=(facts.merge_engine.python, str(PurePath(facts.workers_dir, "merge_adapter.py"))),
        job={
            "base": model.path,
            "adapters": [
                {"path": adapter.path, "weight": weight}
                for adapter, weight in zip(adapters, _weights(draft, adapters), strict=True)
            ],
            "dtype": None if draft.merge.dtype == "auto" else draft.merge.dtype,
            "tokenizer_from": draft.merge.tokenizer_from,
            "verify": draft.merge.verify,
            "prompts": [draft.check.prompt],
            "trust_remote_code": draft.model.trust_remote_code,
            # Whoever asks for a GPU is told when it does not work; whoever leaves it open is not.
            "fallback": draft.merge.device != "gpu",
        },
        artifact=key,
        devices=merge_devices(draft.merge.device, gpus),
        bytes=merged_bytes(model, draft.merge.dtype),
        recreate=draft.merge.recreate,
        serve_lora_on_failure=draft.merge.on_failure == "serve-lora",
        path=out or str(PurePath(facts.artifacts_dir, key.folder)),
        to_folder=out is not None,
        command=_command(draft, facts, out),
        options=_options(draft),
        made_from=made_from(draft, facts, (*_command(draft, facts, None), *_options(draft))),
    )


def made_from(draft: Draft, facts: Facts, command: tuple[str, ...]) -> MadeFrom:
    """What the record of a result says of its base and adapters; ``command``: the words that make it again."""
    return MadeFrom(
        _ingredient(facts.model),
        tuple(
            _ingredient(adapter, weight)
            for adapter, weight in zip(facts.adapters, _weights(draft, facts.adapters), strict=True)
        ),
        tuple(word for word in command if word != "--recreate"),
    )


def _ingredient(spec: ModelSpec | AdapterSpec, weight: float = 1.0) -> Ingredient:
    folder = spec.path if spec.source == "folder" else None
    return Ingredient(spec.ref, spec.revision, folder, spec.weight_bytes, weight)


def merge_inputs(
    draft: Draft, model: ModelSpec, adapters: tuple[AdapterSpec, ...]
) -> dict[str, str]:
    """What is merged, as an artifact's key has it: the content of the base, and of each adapter its weight too."""
    parts = [
        adapter.fingerprint if weight == 1 else f"{weight!r} x {adapter.fingerprint}"
        for adapter, weight in zip(adapters, _weights(draft, adapters), strict=True)
    ]
    return {"base": model.fingerprint, "adapter": " + ".join(parts)}


def _weights(draft: Draft, adapters: tuple[AdapterSpec, ...]) -> tuple[float, ...]:
    return draft.adapter.weights or (1.0,) * len(adapters)


def merge_devices(wanted: str, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Where to try the merge, in order: the GPU with most free memory, if that is enough, then the CPU.

    A merge streams the weights, so what it needs does not grow with them; one that only PEFT can do says
    itself when the GPU is too small, and the CPU is next. Numbers are NVML's;
    :func:`quantui.domain.plan.alone_on` makes them CUDA's.
    """
    roomy = [gpu for gpu in gpus if gpu.free_bytes and gpu.free_bytes >= MERGE_GPU_BYTES]
    best = sorted(roomy, key=lambda gpu: gpu.free_bytes or 0, reverse=True)[:1]
    on_gpu = tuple(f"cuda:{gpu.index}" for gpu in best)
    if wanted == "gpu":
        if not on_gpu:
            raise QuantuiError(
                "merge.no-gpu",
                "merge.device is gpu, and no GPU that can be used has room for the merge.",
                f"It needs {MERGE_GPU_BYTES / 1024**3:.0f} GiB free on one card, and an engine for GPUs.",
                'Set merge.device = "auto" or "cpu" (--device of quantui merge).',
                ExitCode.DOES_NOT_FIT,
            )
        return on_gpu
    return ("cpu",) if wanted == "cpu" else (*on_gpu, "cpu")


def merged_bytes(model: ModelSpec, dtype: str) -> int:
    """Bytes of the merged weights: the base's, unless they are to have another ``dtype``."""
    if dtype == "auto" or model.tensors is None:
        return model.weight_bytes or 0
    return sum(
        tensor.elements * (_BITS[dtype] if tensor.dtype in _FLOATS else DTYPE_BITS[tensor.dtype])
        for tensor in model.tensors
    ) // 8  # fmt: skip


def model_name(facts: Facts) -> str:
    """A name for what is made: the adapters', or the model's, as a folder and a URL can have it."""
    return name_made_from(facts.model.ref, [adapter.ref for adapter in facts.adapters])


def name_made_from(model: str, adapters: Sequence[str]) -> str:
    """The same, of what the model and the adapters are called."""
    refs = adapters or [model]
    text = "-".join(_short_name(ref) for ref in refs)
    return re.sub(r"[^\w.-]+", "-", text).strip("-") or "model"


def _short_name(ref: str) -> str:
    name = PurePath(ref).name or "model"
    if name in {"adapter", "base", "model", ".", ".."}:
        # A folder's generic name says nothing: its parent's does.
        parent = PurePath(ref).parent.name
        name = f"{parent}-{name}" if parent else name
    return name


def merge_notices(facts: Facts) -> list[str]:
    """What a person should know of the adapters before they are merged."""
    notices: list[str] = []
    for adapter in facts.adapters:
        name = PurePath(adapter.ref).name
        if adapter.four_bit.answer:
            notices.append(
                f"{name} was trained on a 4-bit base; it is merged into the 16-bit base, which usually "
                "gives better text than merging into dequantized weights."
            )
        if adapter.base_ref and PurePath(adapter.base_ref).name != PurePath(facts.model.ref).name:
            notices.append(
                f"{name} names {adapter.base_ref} as its base, and is merged into {facts.model.ref}."
            )
    return notices


def _command(draft: Draft, facts: Facts, out: str | None) -> tuple[str, ...]:
    """`quantui merge` with what is merged and where to."""
    words = ["merge", source_of(facts.model), *(source_of(adapter) for adapter in facts.adapters)]
    weights = _weights(draft, facts.adapters)
    if any(weight != 1 for weight in weights):
        words += ["--weight", *map(_shortest, weights)]
    return (*words, *(["--out", out] if out else []))


def _shortest(number: float) -> str:
    """Enough digits to be read back as the same number."""
    return repr(number).removesuffix(".0")


def source_of(spec: ModelSpec | AdapterSpec) -> str:
    """Where it is from, as a command line names it: a folder, or a Hub id with its revision."""
    pinned = spec.source != "folder" and spec.revision is not None
    return f"{spec.ref}@{spec.revision}" if pinned else spec.ref


def _options(draft: Draft) -> tuple[str, ...]:
    """The options of `quantui merge` that say what ``draft`` has otherwise than by default."""
    words: list[str] = []
    for flag, value in (
        ("--device", draft.merge.device),
        ("--dtype", draft.merge.dtype),
        ("--tokenizer-from", draft.merge.tokenizer_from),
    ):
        words += [flag, value] if value != "auto" else []
    if draft.merge.verify == "logits":
        prompt = json.dumps(draft.check.prompt, ensure_ascii=False)
        words += ["--verify", "logits", "--set", f"check.prompt={prompt}"]
    words += ["--recreate"] if draft.merge.recreate else []
    words += ["--python", draft.engine.python] if draft.engine.python else []
    if draft.engine.name != "auto":
        words += ["--set", f"engine.name={draft.engine.name}"]
    if draft.serve.visible_devices:
        words += ["--set", f"serve.visible_devices={list(draft.serve.visible_devices)}"]
    if draft.model.trust_remote_code:
        words += ["--set", "model.trust_remote_code=true"]
    return tuple(words)
