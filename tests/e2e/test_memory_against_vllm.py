"""What is predicted for small models is what a real vLLM on the CPU takes for them, and what it makes of its cache."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.small_architectures import SMALL

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.fitting.fit import Device, Fit, FitRequest, fit
from quantui.domain.methods import method
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

GIB = 1024**3
KV_BYTES = 256 * 1024**2
CONTEXT = 4096
PROGRAM = Path(__file__).parents[1] / "fixtures" / "vllm_loads.py"


@cache
def served(python: str, folder: Path, name: str) -> dict[str, Any]:
    """What the started vLLM tells; each model is started once."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL[name]))
    done = subprocess.run(
        [python, PROGRAM, folder, str(KV_BYTES), str(CONTEXT)],
        capture_output=True,
        text=True,
        timeout=500,
        cwd="/",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


def predicted(name: str) -> Fit:
    shape, census = model_shape(SMALL[name]), weight_census(SMALL[name])
    request = FitRequest(context=CONTEXT, kv_cache_bytes=KV_BYTES)
    return fit(shape, census, method("none"), [Device(True, 16 * GIB, 16 * GIB, "RAM")], request)


@pytest.mark.parametrize("name", SMALL)
def test_the_cache_holds_as_many_tokens_as_predicted(engine: Engine, root: Path, name: str) -> None:
    answer = served(engine.python, root / name, name)
    assert answer["answered"] == 2
    assert predicted(name).kv_cache_tokens == answer["kv_tokens"]


@pytest.mark.parametrize("name", SMALL)
def test_the_weights_take_what_was_predicted(engine: Engine, root: Path, name: str) -> None:
    answer = served(engine.python, root / name, name)
    assert predicted(name).weights.bytes == pytest.approx(answer["weights"], rel=0.01)
