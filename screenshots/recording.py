"""A run in moving pictures: frames of the recorded one, as the wizard shows it, in one GIF.

    python screenshots/recording.py        needs Pillow (the dependency group `screenshots`)

The frames are the same from run to run; Pillow's compression may differ from version to version, so that
``make.py --check`` leaves the file alone.
"""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import world

if TYPE_CHECKING:
    from PIL import Image

OUT = Path(__file__).parent / "wizard" / "run.gif"
MOMENTS_S = (
    1,
    3,
    8,
    13,
    22,
    32,
    40,
    46,
    52,
    58,
    64,
    75,
    100,
    125,
    140,
    175,
    205,
    225,
    260,
    300,
    323,
)
"""Seconds after the start of the run."""
SERVING_S = 330
_FRAME_MS = 700
_LAST_MS = 4000


def frames() -> list[Image.Image]:
    """The run at each moment, then the served model."""
    from drawing import png
    from pictures import CPU, DEMO, recorded_run
    from PIL import Image
    from wizard import NARROW, Picture, draw

    drawn = []
    for at in (*MOMENTS_S, SERVING_S):
        step = "ready" if at == SERVING_S else "run"
        picture = Picture(
            "frame", step, (), NARROW, machine=CPU, answers=DEMO, prepare=recorded_run(at)
        )
        with world.home():
            svg = asyncio.run(draw(picture))
        image = Image.open(io.BytesIO(png(svg))).convert("RGB")
        drawn.append(image.quantize(colors=64, dither=Image.Dither.NONE))
    return drawn


def main() -> int:
    """Draw the frames and write the GIF."""
    first, *others = frames()
    first.save(
        OUT,
        save_all=True,
        append_images=others,
        duration=[_FRAME_MS] * len(others) + [_LAST_MS],
        loop=0,
        optimize=True,
    )
    print(f"{OUT.name}: {len(others) + 1} frames, {OUT.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    world.enter()
    sys.exit(main())
