"""Carry a plan out: check the adapter's values, write, add what is not weights, and prove it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import quantui_wire as wire

from streaming_merge import gpu
from streaming_merge.arithmetic import NotFiniteError
from streaming_merge.checkpoint import INDEX
from streaming_merge.journal import Journal
from streaming_merge.layout import changed_index
from streaming_merge.preflight import check_values
from streaming_merge.proof import Proof
from streaming_merge.refusals import merged_not_finite, no_effect, proof_failed
from streaming_merge.sources import Sources
from streaming_merge.writing import Writer, thread_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint
    from streaming_merge.drafting import SameValues
    from streaming_merge.operations import Plan


@dataclass
class Merge:
    """One merge into ``folder``, which becomes the result's."""

    job: dict[str, Any]
    base: Checkpoint
    adapters: Sequence[AdapterFile]
    plan: Plan
    folder: Path
    plan_id: str
    versions: dict[str, str]

    def run(self, same: Sequence[SameValues]) -> dict[str, Any]:
        """Do it; gives the facts of the result.

        Raises:
            WorkerError: ``merge.not-finite``, ``merge.no-effect``, ``merge.proof-failed``.
            OSError: The disk is full.
        """
        import torch

        torch.set_num_threads(1)
        sources = Sources(self.base.folder, self.adapters)
        journal = Journal(self.folder, self.plan_id)
        try:
            norms = check_values(self.plan, same, sources)
            sources.open_base([shard.path.name for shard in self.base.shards])
            checks = Proof(self.plan, self.folder, sources)
            writer = self._write(sources, journal, checks)
            norms |= {
                name: squares**0.5
                for line in journal.finished.values()
                for name, squares in line["facts"].items()
            }
            if not any(norms.values()):
                raise no_effect(self.adapters[0].folder)
            tokenizer = self._add_side_files()
            proof = self._prove(checks, writer.threads)
        finally:
            sources.close()
            journal.close()
        proof["dtype"] = self.job.get("dtype") or str(
            self.base.config.get("dtype") or self.base.config.get("torch_dtype")
        )
        proof["tokenizer_files_from_adapter"] = tokenizer
        proof["left_out"] = list(self.plan.left_out)
        touched = [o for shard in self.plan.shards for o in shard.outputs if not o.untouched]
        converted = len(proof["converted"])
        facts = {
            "tensors_changed": len(touched) - converted,
            "tensors_untouched": proof["untouched_identical"] + converted,
            "adapter_tensors": len(self.plan.consumed),
            "proof": proof,
            "versions": self.versions,
        }
        kept = {**facts, "method": "streamed", "delta_norms": dict(sorted(norms.items()))}
        text = json.dumps(kept, indent=2)
        (self.folder / "merge_proof.json").write_text(text + "\n", encoding="utf-8")
        journal.remove()
        resumed = writer.progress.resumed_files
        return {**facts, "resumed_shards": resumed, "device": writer.device}

    def _write(self, sources: Sources, journal: Journal, checks: Proof) -> Writer:
        wire.phase("merge")
        fallback = bool(self.job.get("fallback", True))
        device = self.job.get("device") or "cpu"
        if device != "cpu":
            device = gpu.usable(device, self.plan, sources, fallback=fallback)
        threads = thread_count(self.job.get("workers"))
        writer = Writer(self.plan, self.folder, sources, journal, device, threads, fallback)
        # Read again while the next is written: cores and disk would wait for each other otherwise.
        writer.finished = checks.check_shard
        if writer.progress.resumed_files:
            wire.notice(
                f"{writer.progress.resumed_files} of {len(self.plan.shards)} files were finished by an "
                "earlier run; going on from there."
            )

        def report() -> None:
            wire.progress(writer.progress.done, writer.progress.total, unit="bytes")

        try:
            writer.run(report)
        except NotFiniteError as error:
            raise merged_not_finite(*error.args) from error
        return writer

    def _add_side_files(self) -> list[str]:
        from peft_merging import side_files

        side_files.write_config(self.base.config, self.plan.config, self.folder)
        index = changed_index(self.plan, self.base.index)
        if index is not None:
            text = json.dumps(index, indent=2, sort_keys=True)
            (self.folder / INDEX).write_text(text + "\n", encoding="utf-8")
        choice = self.job.get("tokenizer_from") or "auto"
        # Of several adapters the first is the one whose words the result speaks.
        return side_files.copy_side_files(
            self.base.folder, self.adapters[0].folder, self.folder, choice
        )

    def _prove(self, proof: Proof, threads: int) -> dict[str, Any]:
        wire.phase("verify")
        untouched = sum(
            o.nbytes for shard in self.plan.shards for o in shard.outputs if o.untouched
        )
        last = 0.0

        def report(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.25 or done == untouched:
                last = time.monotonic()
                wire.progress(done, untouched, unit="bytes", message="comparing with the base")

        found = proof.check(threads, report)
        if (
            found["sampled_values"]
            and not found["sampled_values_changed"]
            and not found["replaced"]
        ):
            raise no_effect(self.adapters[0].folder)
        if self.job.get("verify") == "logits":
            found["logits"] = answers = self._compare_logits()
            if not answers["passed"]:
                raise proof_failed(
                    "Its answers differ from those of base and unmerged adapter: KL "
                    f"{answers['kl_merged']:.2e} nats a token, where the adapter itself changes "
                    f"{answers['kl_base']:.2e}."
                )
        return found

    def _compare_logits(self) -> dict[str, Any]:
        import child_worker

        wire.phase("compare answers")
        return child_worker.run_child(
            "compare_logits.py",
            {
                "base": str(self.base.folder),
                "adapters": [{"path": str(a.folder), "weight": a.weight} for a in self.adapters],
                "merged": str(self.folder),
                "prompts": self.job.get("prompts") or [],
                "trust_remote_code": bool(self.job.get("trust_remote_code")),
                "device": self.job.get("device") or "cpu",
                "memory_limit_bytes": self.job.get("memory_limit_bytes"),
            },
        )
