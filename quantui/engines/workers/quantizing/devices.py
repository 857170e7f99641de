"""Show the libraries one device: several take the first accelerator they find, whatever they are asked."""

from __future__ import annotations

import os


def only_device(device: str) -> str:
    """Let the libraries see ``device`` alone; its name among what they see.

    Works before torch is loaded.
    """
    if not device.startswith("cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return device
    number = int(device.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number].strip()
    elif number:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)
    return "cuda:0"
