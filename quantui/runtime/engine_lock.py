"""Make engines' locks again from their specs: ``python -m quantui.runtime.engine_lock NAME ...``.

For who maintains quantui, in a source checkout. Every package is pinned with the hashes of its
wheels; source distributions are left out, because building one runs its code, except those of the
packages that the spec names under ``[[build]]``. These are taken as named, without what they require
(that stands in the spec as well), so that making a lock builds nothing. Versions that the lock has already
are kept where they still fit, unless ``--upgrade`` is given. No index or local path is written.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.engines.specs import engine_spec
from quantui.runtime.uv import uv_binary, uv_environment

if TYPE_CHECKING:
    from quantui.engines.specs import EngineSpec


def compile_lock(spec: EngineSpec, *, upgrade: bool = False) -> str:
    """``spec``'s lock as the index resolves it now, or with ``upgrade`` anew.

    Raises CalledProcessError with uv's words.
    """
    kept = "" if upgrade else spec.lock_text
    resolved = [item.spec for item in spec.requirements if not item.no_deps]
    alone = [item.spec for item in spec.requirements if item.no_deps]
    header = (
        f"# Made by: python -m quantui.runtime.engine_lock {spec.name}\n"
        f"# For Linux and Python {spec.python}. Installed with --no-deps --require-hashes: what "
        "stands here is all.\n"
    )
    built = [item.spec for item in spec.built]
    return (
        header
        + _compile(spec, resolved, kept, "--only-binary", ":all:")
        + _compile(spec, alone, kept, "--only-binary", ":all:", "--no-deps")
        + _compile(spec, built, kept, "--no-binary", ":all:", "--no-deps")
    )


def _compile(spec: EngineSpec, requirements: list[str], kept: str, *options: str) -> str:
    if not requirements:
        return ""
    env = dict(os.environ)
    for name, value in uv_environment().items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    if spec.torch is None:
        env.pop("UV_FIND_LINKS", None)
    # uv's names for platforms end at a glibc version; packages above it would not be found.
    platform = (
        f"{spec.platform.machines[0]}-manylinux_{(spec.platform.glibc or '2.28').replace('.', '_')}"
    )
    with tempfile.TemporaryDirectory() as folder:
        # uv prefers the versions it finds in its output file.
        output = Path(folder, "output.txt")
        output.write_text(kept, encoding="utf-8")
        excludes = Path(folder, "excludes.txt")
        excludes.write_text("".join(f"{item.name}\n" for item in spec.excluded), encoding="utf-8")
        subprocess.run(
            [
                uv_binary(), "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate",
                "--generate-hashes", "--excludes", str(excludes), "--output-file", str(output),
                "--python-version", spec.python, "--python-platform", platform, *options,
            ],
            input="\n".join(requirements),
            capture_output=True, text=True, check=True, env=env, cwd=folder,
        )  # fmt: skip
        return output.read_text(encoding="utf-8")


def main() -> int:
    """Write the locks beside the specs; prints their paths."""
    parser = argparse.ArgumentParser(prog="quantui.runtime.engine_lock", description=__doc__)
    parser.add_argument("name", nargs="+")
    folder = Path(str(resources.files("quantui"))) / "data" / "engines"
    parser.add_argument("--upgrade", action="store_true", help="resolve anew")
    args = parser.parse_args()
    for name in args.name:
        target = folder / f"{name}.lock"
        try:
            target.write_text(
                compile_lock(engine_spec(name), upgrade=args.upgrade), encoding="utf-8"
            )
        except subprocess.CalledProcessError as error:
            sys.stderr.write(error.stderr)
            return 1
        sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
