"""Merge as PEFT's documentation says to, and save.

    python peft_default.py JOB

Run by an engine's interpreter. Job: ``base``, ``adapter``, ``out``, ``max_shard_bytes``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Load, merge and save: four calls, nothing tuned."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, job["adapter"]).merge_and_unload()
    merged.save_pretrained(job["out"], max_shard_size=job["max_shard_bytes"])


if __name__ == "__main__":
    main()
