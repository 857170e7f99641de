"""Draw the pictures of the README and the wizard, with the code that draws them in a terminal.

    python screenshots/make.py [NAME ...]              draw all, or some
    python screenshots/make.py --check [NAME ...]      draw and compare with what is here; 1 when one differs
    python screenshots/make.py --record-demo RUN DEMO  record the demo anew: a run's folder and the demo model's

What they show is recorded (screenshots/recorded, screenshots/demo): they are the same from run to run and on every
machine. PNGs need `resvg_py` of the version that pyproject.toml pins.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import world

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def drawings() -> dict[str, Callable[[], str]]:
    """Where each picture is kept, without its ending, to what draws its SVG."""
    from commands import draw_demo, draw_recommendation
    from pictures import PICTURES
    from wizard import draw

    found: dict[str, Callable[[], str]] = {"demo": draw_demo, "recommend": draw_recommendation}
    for picture in PICTURES:

        def drawn(picture=picture) -> str:  # noqa: ANN001 - bound in the loop
            with world.home():
                return asyncio.run(draw(picture))

        found[f"wizard/{picture.name}"] = drawn
    return found


def main() -> int:
    """Draw, or draw and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record-demo", nargs=2, type=Path, metavar=("RUN", "DEMO"))
    args = parser.parse_args()
    if args.record_demo:
        from commands import record

        record(*args.record_demo)
        return 0
    from drawing import png

    different = []
    for name, draw in drawings().items():
        if args.names and not set(args.names) & {name, name.removeprefix("wizard/")}:
            continue
        svg = draw()
        image = png(svg)
        place = HERE / name
        if args.check:
            different += [] if _same(place, svg, image) else [name]
        else:
            place.parent.mkdir(exist_ok=True)
            place.with_suffix(".svg").write_text(svg, encoding="utf-8")
            place.with_suffix(".png").write_bytes(image)
        print(f"{name}: {len(svg) // 1024} KiB, {len(image) // 1024} KiB", flush=True)
    for name in different:
        print(f"{name} differs: python screenshots/make.py {name}", file=sys.stderr)
    return 1 if different else 0


def _same(place: Path, svg: str, image: bytes) -> bool:
    try:
        same = place.with_suffix(".svg").read_text(encoding="utf-8") == svg
        return same and place.with_suffix(".png").read_bytes() == image
    except OSError:
        return False


if __name__ == "__main__":
    world.enter()
    sys.exit(main())
