"""Worker: merge LoRA adapters into their base by streaming, and prove the result.

Job: ``base`` (folder), ``adapters`` (a list of ``{"path": folder, "weight": 1.0}``; or ``adapter``, one
folder), ``out`` (folder to create), and optionally ``device`` (``cpu`` or ``cuda:0``), ``fallback``
(true: where a GPU fails or does not pay, the CPU does it), ``workers`` (busy cores; null: all),
``dtype`` (null: each tensor's own; ``bfloat16``, ``float16``, ``float32``), ``verify`` (``fast``, or
``logits``, which also compares answers with those of base and unmerged adapter), ``prompts`` (for
``logits``), ``trust_remote_code`` (false) and ``tokenizer_from`` (``auto``, ``base``, ``adapter``).

The plan is made from headers alone. Memory does not depend on the model: a few blocks and one adapter pair
for each thread. What only PEFT can merge is handed to ``merge_peft.py``, in this same process. The folder
appears whole and proven, with ``merge_proof.json`` in it, or not at all; after SIGKILL or a full disk the
same job goes on from the files that were finished.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.metadata
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import adapter_rules as rules
import atomic_folder
import child_worker
import peft_merging  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import streaming_merge  # noqa: F401

# isort: split
import quantui_wire as wire
from streaming_merge import (
    adapter_files,
    checkpoint,
    fitting,
    gpu,
    journal,
    layout,
    placement,
    planning,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint
    from streaming_merge.drafting import SameValues
    from streaming_merge.operations import Plan

# One thread of torch for each of ours; idle ones are not to spin. Read when torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SIDE_FILES = 64_000_000
"""Bytes allowed for tokenizer, config and proof."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Merge, verify and put into place; the result event says what was done."""
    began = time.monotonic()
    out = Path(job["out"]).absolute()
    check_job(job, out)
    keep_one_heap()
    wire.phase("plan")
    folders = adapters_of(job)
    configs = [rules.read_config(folder) for folder, _ in folders]
    reasons = [
        rules.route(config, folder).through_peft
        for config, (folder, _) in zip(configs, folders, strict=True)
    ]
    if reason := next((reason for reason in reasons if reason), None):
        hand_to_peft(job, folders, reason)
    base = checkpoint.read_checkpoint(Path(job["base"]))
    adapters = [
        adapter_files.read_adapter(folder, config, weight)
        for (folder, weight), config in zip(folders, configs, strict=True)
    ]
    try:
        plan, same = plan_merge(job, base, adapters, out)
    except placement.UnmappedError as error:
        hand_to_peft(job, folders, str(error))
    for adapter in adapters:
        note_missing_biases(adapter)
    if job.get("verify") == "logits" and "architectures" in plan.config:
        raise wire.WorkerError(
            "merge.no-reference",
            "The answers of a classifier are not compared.",
            "Base and result are of different classes, and the prompts are for a language model.",
            "Merge with --verify fast: its values are proven all the same.",
            exit_code=2,
        )
    for text in plan.notices:
        wire.notice(text)
    facts = carry_out(job, base, adapters, plan, same, out)
    return {
        "path": str(out),
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "method": "streamed",
        "why_peft": None,
        **facts,
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def keep_one_heap() -> None:
    """Let all threads share one heap of the C library: what one frees, another can use.

    Otherwise each keeps its own (glibc, ``M_ARENA_MAX``); another C library is left as it is.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


_M_ARENA_MAX = -8
"""glibc, malloc.h."""


def check_job(job: dict[str, Any], out: Path) -> None:
    """Refuse what can be refused before anything is read."""
    if out.exists():
        raise wire.WorkerError(
            "merge.exists",
            f"{out} exists already.",
            "A finished merge is never overwritten.",
            "Remove the folder, or choose another.",
            exit_code=2,
        )
    if job.get("dtype") not in (None, *layout.DTYPES):
        raise wire.WorkerError(
            "merge.bad-dtype",
            f"The result cannot be of dtype {job['dtype']!r}.",
            fix=f"Choose one of {', '.join(layout.DTYPES)}.",
            exit_code=2,
        )
    if importlib.util.find_spec("torch") is None:
        raise wire.WorkerError(
            "engine.lacks-packages",
            "This engine lacks torch.",
            "Merging needs it.",
            "Install torch into the engine, or choose another engine.",
        )


def adapters_of(job: dict[str, Any]) -> list[tuple[Path, float]]:
    """(folder, weight) of each adapter of the job, in order."""
    if "adapters" not in job:
        return [(Path(job["adapter"]), 1.0)]
    return [(Path(entry["path"]), float(entry.get("weight", 1.0))) for entry in job["adapters"]]


def hand_to_peft(
    job: dict[str, Any], folders: Sequence[tuple[Path, float]], reason: str
) -> NoReturn:
    """Become ``merge_peft.py`` with the same job: this process has loaded nothing large yet.

    Raises:
        WorkerError: ``merge.adapters-conflict``: several adapters, or a weight, which it cannot do.
    """
    if len(folders) > 1 or folders[0][1] != 1.0:
        raise wire.WorkerError(
            "merge.adapters-conflict",
            "Only a single adapter of weight 1 can be merged through PEFT.",
            f"PEFT is needed because {reason}.",
            "Merge that adapter alone, and the others into the result.",
            exit_code=2,
        )
    missing = [n for n in ("transformers", "peft") if importlib.util.find_spec(n) is None]
    if missing:
        raise wire.WorkerError(
            "engine.lacks-packages",
            f"This engine lacks {', '.join(missing)}.",
            f"Merging through PEFT needs them, because {reason}.",
            f"Install {' '.join(missing)} into the engine, or choose another engine.",
        )
    wire.notice(f"Merged through PEFT, in memory: {reason}.")
    handed = {**job, "adapter": str(folders[0][0]), "why_peft": reason}
    file = os.memfd_create("job", 0)
    os.write(file, json.dumps(handed).encode())
    # torch has not been loaded: PEFT may use all cores.
    os.environ.pop("OMP_NUM_THREADS", None)
    program = str(Path(__file__).resolve().with_name("merge_peft.py"))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, program, f"/proc/self/fd/{file}"])


def plan_merge(
    job: dict[str, Any], base: Checkpoint, adapters: Sequence[AdapterFile], out: Path
) -> tuple[Plan, list[SameValues]]:
    """The plan; transformers is asked, in a process of its own, where names alone do not tell."""
    model_type = str(base.config.get("model_type", ""))
    places = placement.Places(base.tensors, model_type, None)
    parts = [adapter_files.parts_of(adapter) for adapter in adapters]
    if any(
        fitting.needs_description(adapter, part, places, base.config)
        for adapter, part in zip(adapters, parts, strict=True)
    ):
        modules = {module.replace(".base_layer", "") for part in parts for module in part.modules}
        modules |= {name.rpartition(".")[0] for part in parts for name in part.whole}
        description = describe(job, sorted(modules))
        places = placement.Places(base.tensors, model_type, description)
    return planning.build_plan(base, adapters, places, dtype=job.get("dtype"))


def describe(job: dict[str, Any], modules: list[str]) -> dict[str, Any]:
    """What the engine's transformers makes of the base; see ``describe_model.py``."""
    # In memory, so that no file is left however this process ends.
    file = os.memfd_create("description")
    asked = {
        "base": job["base"],
        "modules": modules,
        "trust_remote_code": bool(job.get("trust_remote_code")),
        "out": f"/proc/self/fd/{file}",
    }
    child_worker.run_child("describe_model.py", asked, pass_fds=(file,))
    with os.fdopen(file, encoding="utf-8") as text:
        text.seek(0)
        found: dict[str, Any] = json.load(text)
        return found


def note_missing_biases(adapter: AdapterFile) -> None:
    """Warn of biases that the config speaks of and the file does not hold."""
    bias = adapter.config.get("bias", "none")
    if bias != "none" and not any(name.endswith(".bias") for name in adapter.tensors):
        wire.notice(
            f"The adapter says it trained biases (bias={bias!r}) and holds none.", level="warning"
        )


def carry_out(
    job: dict[str, Any],
    base: Checkpoint,
    adapters: Sequence[AdapterFile],
    plan: Plan,
    same: Sequence[SameValues],
    out: Path,
) -> dict[str, Any]:
    """Write and prove ``plan``; gives the facts of the result."""
    from streaming_merge.carrying_out import Merge

    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "transformers", "peft")
        if importlib.util.find_spec(name) is not None
    }
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(journal.plan_hash, plan, base, adapters, versions)
        # A second or two of one core, which the hash need not wait for. Before the folder is made: until
        # then a signal simply ends the process.
        import torch  # noqa: F401

        plan_id = hashed.result()
    if not job.get("fallback", True):
        gpu.refuse_absent(job.get("device") or "cpu")
    refuse_too_full(plan, out, plan_id)
    try:
        with atomic_folder.resumable_folder(
            out,
            lambda partial: journal.belongs_to(partial, plan_id),
            keep_finished,
        ) as folder:
            merge = Merge(job, base, adapters, plan, folder, plan_id, versions)
            return merge.run(same)
    except BlockingIOError as error:
        raise refusals.in_progress(out) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise wire.WorkerError(
            "merge.exists",
            f"{error.filename} is in the way.",
            f"{error.strerror}.",
            "Remove it, or choose another place for the output.",
            exit_code=2,
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(out, plan) from error
        raise


def refuse_too_full(plan: Plan, out: Path, plan_id: str) -> None:
    """Check the disk before anything is written; what an earlier run finished counts."""
    partial = atomic_folder.partial_of(out)
    ours = journal.belongs_to(partial, plan_id)
    finished = journal.finished_files(partial) if ours else {}
    needed = plan.bytes + SIDE_FILES - sum(line["size"] for line in finished.values())
    place = out.parent
    while not place.exists():
        place = place.parent
    # Everything else of an unfinished merge is removed before anything is written.
    cleared = sum(
        file.lstat().st_blocks * 512
        for file in partial.rglob("*")
        if file.is_file() and file.name not in finished
    )
    free = shutil.disk_usage(place).free + cleared
    if free < needed:
        raise wire.WorkerError(
            "disk.not-enough",
            f"The merge needs {needed / 1e9:.2f} GB on the disk of {out.parent}.",
            f"{free / 1e9:.2f} GB are free there.",
            "Free disk space, or put the output on another disk.",
            exit_code=3,
        )


def keep_finished(partial: Path) -> bool:
    """Give back the space of what is unfinished; whether a finished file is left."""
    journal.clear_unfinished(partial)
    return bool(journal.finished_files(partial))


def disk_full(out: Path, plan: Plan) -> wire.WorkerError:
    """The error of a disk that became full; what is kept is named with its size."""
    partial = atomic_folder.partial_of(out)
    kept = folder_bytes(partial)
    fix = "Free disk space and run again."
    if kept:
        fix = (
            f"Free disk space and run again: it goes on from {kept / 1e9:.2f} GB that are kept in "
            f"{partial}. Remove that folder to have the space back."
        )
    return wire.WorkerError(
        "disk.full",
        f"The disk became full while {plan.bytes / 1e9:.2f} GB were written to {out.parent}.",
        "Another program took the space, or a quota ended it.",
        fix,
        exit_code=3,
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in ``folder``; 0 where there is none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    # Until there is something to remove, an interrupt ends this as any other signal does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    wire.run(main, at_once=True)
