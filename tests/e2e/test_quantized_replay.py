"""A profile that merges, quantizes and serves, replayed with the real producer and the real vLLM on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.quantui_command import Home, write_profile
from fixtures.takes_minutes import TAKES_MINUTES

from quantui.runtime.artifacts import read_artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.runtime.engines import Engine

pytestmark = pytest.mark.engine


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("method", [pytest.param("awq", marks=TAKES_MINUTES), "int8_w8a8"])
def test_a_profile_merges_quantizes_serves_and_the_second_time_only_serves(
    demo: Path,
    engine: Engine,
    producer_engine: Callable[[str], Engine],
    tmp_path: Path,
    method: str,
) -> None:
    home = Home(tmp_path / "home")
    profile = write_profile(
        tmp_path / "prod.toml",
        {
            "model": {"id": demo / "base"},
            "adapter": {"id": demo / "adapter"},
            "quantization": {
                "method": method,
                "python": producer_engine("llm-compressor").python,
                "calibration_samples": 16,
                "calibration_length": 64,
                "proof_text": demo / "heldout_adapter.txt",
                "max_loss": 0.5,
            },
            "engine": {"name": "vllm-cpu", "python": engine.python},
            "serve": {"port": 0, "enforce_eager": True},
            "check": {"text": demo / "heldout_adapter.txt"},
            "cleanup": {"after_run": "delete-merged"},
        },
    )
    first = home.run("--profile", profile, "--check-only", "--json")
    assert first.exit_code == 0, first.text[-3000:]
    assert [event["step"] for event in first.of("step.finished")] == [
        "merge", "quantize", "serve", "check",
    ]  # fmt: skip
    quantized = first.of("step.finished")[1]["result"]
    assert quantized["proof"]["runtime"].startswith("vLLM")
    served = first.of("step.finished")[3]["result"]["perplexity"]["perplexity"]
    # The same weights by the same vLLM: only how the text is cut differs.
    assert served == pytest.approx(quantized["proof"]["perplexity"], rel=0.1)
    (artifact,) = home.artifacts
    assert read_artifact(artifact) is not None
    assert artifact == Path(quantized["path"])

    again = home.run("--profile", profile, "--check-only", "--json")
    assert again.exit_code == 0, again.text[-3000:]
    assert [event["artifact"] for event in again.of("step.reused")] == [str(artifact)]
    assert again.of("step.finished")[0]["result"] == {"needless": True}
    assert again.of("server.answered") != []
    assert home.artifacts == [artifact]
    assert home.cleared()
