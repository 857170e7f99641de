"""Worker: merge a LoRA adapter into its base through PEFT, and prove the result.

Job: ``base`` and ``adapter`` (folders), ``out`` (folder to create), and optionally ``device``
(``cpu`` or ``cuda:0``), ``dtype`` (null: the base's own; ``bfloat16``, ``float16``, ``float32``),
``max_shard_bytes`` (5e9), ``verify`` (``fast``, or ``logits``, which also compares what the written
model says with base and unmerged adapter), ``prompts`` (for ``logits``), ``trust_remote_code``
(false), ``memory_limit_bytes`` (null) and ``tokenizer_from`` (``auto``, ``base``, ``adapter``).

Memory grows with the base (see ``peft_merging.base.refuse_too_large``). The folder appears whole and
proven, with ``merge_proof.json`` in it, or not at all.
"""

from __future__ import annotations

import errno
import gc
import importlib.util
import json
import os
import resource
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import adapter_rules  # noqa: F401
import atomic_folder
import child_worker
import peft_merging  # noqa: F401
import quantui_wire as wire
from streaming_merge import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_merging.logits import Reference
    from peft_merging.proof import Proof
    from streaming_merge.checkpoint import Checkpoint

# Idle threads of torch are not to spin (see make_demo.py). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DTYPES = ("bfloat16", "float16", "float32")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Merge, verify and put into place; the result event says what was done."""
    began = time.monotonic()
    out = Path(job["out"]).absolute()
    check_job(job, out)
    try:
        with atomic_folder.whole_folder(out) as folder:
            facts = merge(job, folder, out)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except BlockingIOError as error:
        raise refusals.in_progress(out) from error
    return {
        "path": str(out),
        "bytes": size,
        "method": "peft",
        "why_peft": job.get("why_peft"),
        **facts,
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def check_job(job: dict[str, Any], out: Path) -> None:
    """Refuse what can be refused before anything is imported or written."""
    if out.exists():
        raise wire.WorkerError(
            "merge.exists",
            f"{out} exists already.",
            "A finished merge is never overwritten.",
            "Remove the folder, or choose another.",
            exit_code=2,
        )
    if job.get("dtype") not in (None, *DTYPES):
        raise wire.WorkerError(
            "merge.bad-dtype",
            f"The result cannot be of dtype {job['dtype']!r}.",
            fix=f"Choose one of {', '.join(DTYPES)}.",
            exit_code=2,
        )
    names = ("torch", "transformers", "peft", "safetensors")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise wire.WorkerError(
            "engine.lacks-packages",
            f"This engine lacks {', '.join(missing)}.",
            "Merging through PEFT needs them.",
            f"Install {' '.join(missing)} into the engine, or choose another engine.",
        )


def merge(job: dict[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """Do the work in ``folder``, which later becomes ``out``; return the facts of the result."""
    wire.phase("check")
    import peft
    import torch
    import transformers
    from peft_merging import adapter as adapters
    from peft_merging import attach, base, logits, merging, side_files
    from peft_merging.loading import reporting, resident_growth
    from peft_merging.proof import Proof
    from streaming_merge import checkpoint

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = job.get("device") or "cpu"
    trust, reason = bool(job.get("trust_remote_code")), job.get("why_peft")
    shard = int(job.get("max_shard_bytes") or 5_000_000_000)
    adapter = adapters.read(Path(job["adapter"]))
    source = checkpoint.read_checkpoint(Path(job["base"]))
    base.refuse_too_large(source, adapter, out, device, job.get("memory_limit_bytes"), shard)

    def load(from_folder: Path, config: dict[str, Any]) -> Any:  # noqa: ANN401
        return base.load(from_folder, config, device, trust_remote_code=trust)

    wire.phase("load base")
    with reporting(source.bytes, resident_growth()):
        model = load(source.folder, source.config)
    dtype = getattr(torch, job["dtype"]) if job.get("dtype") else base.own_dtype(model)
    had_ties = attach.untie_if_needed(model, adapter)
    vocabulary = model.get_input_embeddings().weight.shape[0]

    # What the tie of head and embedding means to a merge, and what no formula here covers, only the
    # model's own answers can prove.
    before = None
    by_logits = (
        job.get("verify") == "logits" or had_ties or (reason or adapter.why_peft) is not None
    )
    by_logits = by_logits or adapter.config.get("target_parameters") is not None
    if by_logits:
        ids = logits.prompt_ids(source.folder, job.get("prompts") or (), vocabulary)
        bare = logits.answers(model, ids)

    wire.phase("load adapter")
    wrapped = attach.attach(model, adapter, device)
    if by_logits:
        before = logits.reference(wrapped, ids, bare)

    wire.phase("merge")
    proof = Proof(adapter)
    merged = merging.merge(wrapped, adapter, dtype, proof)
    del wrapped, model

    wire.phase("write")
    write_weights(merged, folder, shard)
    side_files.write_config(source.config, side_files.changes_of(merged), folder)
    choice = job.get("tokenizer_from") or "auto"
    taken = side_files.copy_side_files(source.folder, adapter.folder, folder, choice)

    wire.phase("verify")
    del merged
    gc.collect()
    found = verify(proof, source, folder, before, load, trust_remote_code=trust)
    summary = {
        "tensors_changed": len(proof.delta_norms),
        "tensors_untouched": found["untouched_identical"] + len(found["converted"]),
        "adapter_tensors": len(adapter.tensors),
        "proof": {
            **proof.sampled_facts(),
            "all_finite": True,
            "dtype": str(dtype).removeprefix("torch."),
            "tokenizer_files_from_adapter": taken,
            **found,
        },
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }
    write_proof(summary, proof.delta_norms, folder)
    return summary


def write_proof(summary: dict[str, Any], norms: dict[str, float], folder: Path) -> None:
    """Keep what was proven beside the weights."""
    text = json.dumps({**summary, "method": "peft", "delta_norms": norms}, indent=2)
    (folder / "merge_proof.json").write_text(text + "\n", encoding="utf-8")


def write_weights(merged: Any, folder: Path, shard: int) -> None:  # noqa: ANN401
    """Save ``merged`` as safetensors in shards of at most ``shard`` bytes.

    Raises:
        OSError: The disk is full; safetensors has an error of its own for that.
    """
    from peft_merging.loading import reporting
    from safetensors import SafetensorError

    expected = sum(p.numel() * p.element_size() for p in merged.parameters())
    try:
        with reporting(expected, lambda: folder_bytes(folder)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged.save_pretrained(folder, max_shard_size=shard)
    except SafetensorError as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {number})" in str(error):
                raise OSError(number, os.strerror(number), str(folder)) from error
        raise


def verify(
    proof: Proof,
    source: Checkpoint,
    folder: Path,
    before: Reference | None,
    load: Callable[[Path, dict[str, Any]], Any],
    *,
    trust_remote_code: bool,
) -> dict[str, Any]:
    """Check what was written to ``folder``; give the part of the proof that comes of it.

    Raises:
        WorkerError: ``merge.proof-failed``.
    """
    from peft_merging import logits
    from streaming_merge import checkpoint
    from streaming_merge.refusals import proof_failed

    renamed = stored_otherwise(proof, folder, trust_remote_code=trust_remote_code)
    found = proof.compare_files(source, checkpoint.read_checkpoint(folder), renamed)
    if before is not None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found["logits"] = answers = logits.compare(load(folder, config), before)
        if not answers["passed"]:
            raise proof_failed(
                "Its answers differ from those of base and unmerged adapter: KL "
                f"{answers['kl_merged']:.2e} nats a token, where the adapter itself changes "
                f"{answers['kl_base']:.2e}."
            )
    elif proof.unproven:
        wire.notice(
            f"{len(proof.unproven)} tensors were merged by PEFT alone; verify by logits to prove "
            "them.",
            level="warning",
        )
    if found["left_out"]:
        wire.notice(
            f"{len(found['left_out'])} tensors of the base are not part of the model that "
            f"transformers loads and are left out: {', '.join(found['left_out'][:3])}.",
            level="warning",
        )
    return found


def stored_otherwise(
    proof: Proof, folder: Path, *, trust_remote_code: bool
) -> dict[str, str | None]:
    """Merged parameters that ``folder`` stores under other names (vision models), or in parts (experts).

    Stored name -> the parameter, or None where it is only a part of one.
    """
    import tempfile

    from streaming_merge import checkpoint

    stored = checkpoint.read_checkpoint(folder).tensors
    elsewhere = [name for name in proof.delta_norms if name not in stored]
    if not elsewhere:
        return {}
    with tempfile.TemporaryDirectory() as place:
        described_in = Path(place) / "description.json"
        asked = {
            "base": str(folder),
            "out": str(described_in),
            "trust_remote_code": trust_remote_code,
        }
        child_worker.run_child("describe_model.py", asked)
        described = json.loads(described_in.read_text(encoding="utf-8"))
    found: dict[str, str | None] = {}
    for name in elsewhere:
        pieces = described["parameters"].get(name, {}).get("pieces", ())
        for piece in pieces:
            whole = len(pieces) == 1 and not piece["transposed"]
            found[piece["source"]] = name if whole else None
    return found


def folder_bytes(folder: Path) -> int:
    """Bytes written below ``folder`` so far."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


if __name__ == "__main__":
    wire.run(main)
