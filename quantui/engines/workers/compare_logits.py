"""Worker: compare what a merged model says with what its base says with the adapters unmerged.

Job: ``base`` (folder), ``adapters`` (``[{"path": folder, "weight": 1.0}, ...]``), ``merged``
(folder), and optionally ``device`` (``cpu`` or ``cuda:0``), ``prompts`` (a list of texts),
``trust_remote_code`` (false) and ``memory_limit_bytes`` (null).

Result: see ``peft_merging.logits.compare``; a merge that is wrong is a result whose ``passed`` is
false. The reference is base and adapters as PEFT runs them unmerged, ties and all, computed in
float32 whatever the weights are. One model is in memory at a time.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import adapter_rules  # noqa: F401
import peft_merging  # noqa: F401
import quantui_wire as wire

if TYPE_CHECKING:
    from peft_merging.adapter import Adapter
    from peft_merging.logits import Reference
    from streaming_merge.checkpoint import Checkpoint

# Idle threads of torch are not to spin (see make_demo.py). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NEEDS = ("The comparison of logits", "compare on another device, or merge with --verify fast")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Ask both models and compare their answers."""
    wire.phase("check")
    names = ("torch", "transformers", "peft", "safetensors")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise wire.WorkerError(
            "engine.lacks-packages",
            f"This engine lacks {', '.join(missing)}.",
            "Comparing logits needs them.",
            f"Install {' '.join(missing)} into the engine, or choose another engine.",
        )
    import transformers
    from peft_merging import adapter, logits
    from streaming_merge.checkpoint import read_checkpoint

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = job.get("device") or "cpu"
    source, merged = (read_checkpoint(Path(job[name])) for name in ("base", "merged"))
    adapters = [adapter.read(Path(entry["path"])) for entry in job["adapters"]]
    weights = [float(entry.get("weight", 1.0)) for entry in job["adapters"]]
    refuse_without_reference(adapters, weights)
    refuse_too_large((source, merged), adapters, job, device)

    before = ask_unmerged(source, adapters, weights, job, device)
    gc.collect()
    wire.phase("load merged")
    model = load(merged, job, device)
    wire.phase("ask merged")
    return logits.compare(model, before)


def ask_unmerged(
    source: Checkpoint,
    adapters: list[Adapter],
    weights: list[float],
    job: dict[str, Any],
    device: str,
) -> Reference:
    """The answers of the base, and of the base with all adapters active at once."""
    from peft_merging import attach, logits

    wire.phase("load base")
    model = load(source, job, device)
    for adapter in adapters:
        attach.resize_if_needed(model, adapter)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = logits.prompt_ids(source.folder, job.get("prompts") or (), vocabulary)
    wire.phase("ask base")
    bare = logits.answers(model, ids)
    wire.phase("load adapters")
    names = [attach.NAME, *(f"further_{number}" for number in range(1, len(adapters)))]
    for number, (name, adapter) in enumerate(zip(names, adapters, strict=True), 1):
        model = attach.attach(model, adapter, device, name)
        wire.progress(number, len(adapters), unit="adapters")
    activate(model, dict(zip(names, weights, strict=True)))
    wire.phase("ask base and adapters")
    return logits.reference(model, ids, bare)


def activate(model: Any, weights: dict[str, float]) -> None:  # noqa: ANN401
    """Let the adapters named in ``weights`` act together, each LoRA's scale times its weight."""
    if len(weights) > 1:
        # PeftModel.set_adapter takes one name; the tuner beneath takes several.
        model.base_model.set_adapter(list(weights), inference_mode=True)
    for module in model.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            scaling.update({n: scaling[n] * w for n, w in weights.items() if n in scaling})


def refuse_without_reference(adapters: list[Adapter], weights: list[float]) -> None:
    """Refuse what PEFT gives no unmerged answer to: sums and multiples of what is no LoRA.

    Raises:
        WorkerError: ``merge.no-reference``.
    """
    from peft_merging import attach

    if len(adapters) == 1 and weights == [1.0]:
        return
    for adapter in adapters:
        fields = ("use_dora", "modules_to_save", "trainable_token_indices")
        more = [field for field in fields if adapter.config.get(field)]
        more += ["saved weights"] if attach.replaced_tensors(adapter) and not more else []
        more += [adapter.why_peft] if adapter.why_peft else []
        if more:
            raise wire.WorkerError(
                "merge.no-reference",
                f"The adapter in {adapter.folder} is more than LoRA ({', '.join(more)}), so PEFT "
                "runs it neither beside others nor with a weight.",
                "Without base and unmerged adapters there is nothing to compare the merge with.",
                "Merge with --verify fast, or this adapter alone with the weight 1.",
                exit_code=2,
            )


def refuse_too_large(
    models: tuple[Checkpoint, Checkpoint], adapters: list[Adapter], job: dict[str, Any], device: str
) -> None:
    """Check memory before anything large is loaded.

    It takes the larger model, four bytes an adapter value, and sixteen bytes an element of the
    largest tensor (its float32 copy and what is computed of it), besides the libraries; and in RAM
    the answers: four bytes a token of the prompts and of the vocabulary, twice over, and those of
    three prompts more while one is worked on.

    Raises:
        WorkerError: ``merge.not-enough-memory``.
    """
    from peft_merging import base, logits

    values = sum(tensor.numel() for adapter in adapters for tensor in adapter.tensors.values())
    work = (
        max(m.bytes for m in models) + 4 * values + 16 * max(base.largest_tensor(m) for m in models)
    )
    vocabulary = max(
        int((part.get("text_config") or part).get("vocab_size") or 0)
        for part in (m.config for m in models)
    )
    prompts = len(job.get("prompts") or logits.PROMPTS)
    answers = 4 * vocabulary * logits.LONGEST * (2 * prompts + 3)
    if device.startswith("cuda"):
        import torch

        free = torch.cuda.mem_get_info(device)[0]
        base.refuse_short(NEEDS, device, work + base.ON_CARD, free)
        work = 0
    free = base.available_bytes(job.get("memory_limit_bytes"))
    base.refuse_short(NEEDS, "RAM", work + answers + base.LIBRARIES, free)


def load(source: Checkpoint, job: dict[str, Any], device: str) -> Any:  # noqa: ANN401
    """The model in ``source``, loaded with progress in bytes."""
    from peft_merging import base
    from peft_merging.loading import reporting, resident_growth

    trust = bool(job.get("trust_remote_code"))
    with reporting(source.bytes, resident_growth()):
        return base.load(source.folder, source.config, device, trust_remote_code=trust)


if __name__ == "__main__":
    wire.run(main)
