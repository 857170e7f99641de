"""Every method that quantui makes, made of the demo's model, proven, and put into one table.

Each run makes the rows that CI has time for. All of them, the table printed at the end::

    QUANTUI_TEST_ALL_PRODUCERS=1 pytest tests/e2e/test_every_method.py
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.quantized_rows import LENGTH, ROWS, SAMPLES, Row
from fixtures.quantui_command import Home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = pytest.mark.engine

ALL = os.environ.get("QUANTUI_TEST_ALL_PRODUCERS") == "1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One quantui for all rows: the 16-bit model is measured once."""
    return Home(tmp_path_factory.mktemp("every-method"))


@pytest.mark.parametrize(
    "row", [row for row in ROWS if ALL or row.in_ci], ids=lambda row: row.name.replace(" ", "-")
)
def test_a_method_is_made_proven_and_loses_no_more_than_its_width_may(
    row: Row,
    demo: Path,
    engine: Engine,
    producer_engine: Callable[[str], Engine],
    home: Home,
    tmp_path: Path,
    tell_quantized: Callable[[Row, dict[str, Any]], None],
) -> None:
    made = home.run(
        "quantize", demo / "base", "--method", row.method, "--producer", row.producer, *row.options,
        "--samples", SAMPLES, "--length", LENGTH, "--out", tmp_path / "out", "--force", "--json",
        "--set", f"engine.python={engine.python}",
        "--set", f"quantization.python={producer_engine(row.producer).python}",
    )  # fmt: skip
    assert made.exit_code == 0, made.text[-3000:]
    (finished,) = (event for event in made.of("step.finished") if event["step"] == "quantize")
    result = finished["result"]
    tell_quantized(row, result)
    assert result["proof"]["finite"]
    assert result["proof"]["runtime"].startswith("vLLM") == row.served
    assert result["loss"] <= row.may_lose
    assert (tmp_path / "out" / "quantui.json").is_file()
