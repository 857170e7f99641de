"""What an adapter_config.json asks for: streamed, left to PEFT, or refused; read without PEFT."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

WORKERS = str(Path(__file__).parents[2] / "quantui/engines/workers")
sys.path.insert(0, WORKERS)
import adapter_rules  # noqa: E402
from quantui_wire import WorkerError  # noqa: E402

if WORKERS in sys.path:
    sys.path.remove(WORKERS)

HERE = Path("adapter")

# LoraConfig().to_dict() of PEFT 0.21.2, with the names a saved one has.
PLAIN: dict[str, Any] = {
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None,
    "auto_mapping": None, "base_model_name_or_path": "org/base", "bias": "none",
    "corda_config": None, "ensure_weight_tying": False, "eva_config": None,
    "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
    "init_lora_weights": True, "kasa_config": None, "layer_replication": None,
    "layers_pattern": None, "layers_to_transform": None, "loftq_config": {}, "lora_alpha": 16,
    "lora_bias": False, "lora_dropout": 0.05, "lora_ga_config": None, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "monteclora_config": None,
    "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 8,
    "rank_pattern": {}, "revision": None, "target_modules": ["q_proj"],
    "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None,
    "use_bdlora": None, "use_dora": False, "use_qalora": False, "use_rslora": False,
    "velora_config": None,
}  # fmt: skip


def through_peft(**settings: Any) -> str | None:
    return adapter_rules.route({**PLAIN, **settings}, HERE).through_peft


def refusal(**settings: Any) -> dict[str, Any]:
    with pytest.raises(WorkerError) as caught:
        adapter_rules.route({**PLAIN, **settings}, HERE)
    event = caught.value.event
    assert event["exit_code"] == 2
    assert event["why"]
    assert event["fix"]
    return event


def write_peft(folder: Path, monkeypatch: pytest.MonkeyPatch, fields: str) -> None:
    """A PEFT that cannot be imported and whose LoraConfig has ``fields``."""
    package = folder / "peft"
    (package / "tuners/lora").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('PEFT was imported')\n")
    (package / "config.py").write_text("class PeftConfigMixin:\n    task_type: str = None\n")
    (package / "tuners/lora/config.py").write_text(f"class LoraConfig:\n{fields}")
    (folder / "peft-9.1.dist-info").mkdir()
    (folder / "peft-9.1.dist-info/METADATA").write_text("Name: peft\nVersion: 9.1\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "peft", raising=False)


def test_a_plain_lora_is_streamed():
    assert through_peft() is None


def test_the_smallest_config_is_streamed():
    assert adapter_rules.route({"peft_type": "LORA"}, HERE).through_peft is None


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"fan_in_fan_out": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 32}},
        {"target_parameters": ["mlp.experts.gate_up_proj"]},
        {"trainable_token_indices": {"embed_tokens": [3]}},
        {"ensure_weight_tying": True},
        {"layers_to_transform": [0], "layers_pattern": "layers", "exclude_modules": ["lm_head"]},
        {"init_lora_weights": False},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0, "tau": 0.99}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
        {"merge_weights": True},
        {"runtime_config": {"ephemeral_gpu_offload": False}},
    ],
    ids=str,
)
def test_what_lora_s_own_formulas_cover_is_streamed(settings):
    assert through_peft(**settings) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"corda_config": {"corda_method": "ipm"}},
        {"lora_ga_config": {"direction": "ArB2r"}},
        {"loftq_config": {"loftq_bits": 4}},
    ],
    ids=str,
)
def test_a_converted_adapter_is_a_plain_lora_whatever_arguments_its_initialization_had(settings):
    assert through_peft(init_lora_weights=True, r=16, lora_alpha=32, **settings) is None


@pytest.mark.parametrize("name", sorted(adapter_rules.THROUGH_PEFT))
@pytest.mark.parametrize("value", [{}, {"setting": 1}])
def test_a_variant_is_left_to_peft_even_when_its_config_is_empty(name, value):
    assert through_peft(**{name: value}) == adapter_rules.THROUGH_PEFT[name]


def test_another_kind_of_adapter_is_left_to_peft():
    assert adapter_rules.route({"peft_type": "IA3"}, HERE).through_peft == "IA3 is not LoRA"


@pytest.mark.parametrize("name", ["pissa", "olora", "OLoRA"])
def test_an_initialization_that_peft_repeats_is_left_to_peft(name):
    assert "takes a part of the base away" in through_peft(init_lora_weights=name)
    assert adapter_rules.changes_base({"init_lora_weights": name})


def test_every_reason_is_told():
    reason = through_peft(init_lora_weights="pissa", use_bdlora={"nblocks": 2})
    assert "pissa" in reason
    assert "BD-LoRA" in reason


@pytest.mark.parametrize(
    "name", ["pissa_niter_16", "PiSSA", "corda", "lora_ga", "loftq", "olora_fast"]
)
def test_an_initialization_that_cannot_be_repeated_is_refused_with_its_conversion(name):
    event = refusal(init_lora_weights=name)
    assert event["code"] == "merge.unconverted-init"
    assert repr(name) in event["what"]
    assert "path_initial_model_for_weight_conversion" in event["fix"]


def test_a_plain_initialization_leaves_the_base_as_it_is():
    assert not adapter_rules.changes_base(PLAIN)
    assert adapter_rules.changes_base({**PLAIN, "kasa_config": {}})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"arrow_config": {}}, "arrow_config"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type PROMPT_TUNING"),
        ({"peft_type": "XLORA"}, "peft_type XLORA"),
    ],
)
def test_what_no_weights_can_express_is_refused(settings, named):
    event = refusal(**settings)
    assert event["code"] == "merge.not-mergeable"
    assert named in event["what"]


def test_an_unknown_setting_is_refused_with_the_version_that_does_not_know_it(
    tmp_path, monkeypatch
):
    write_peft(tmp_path, monkeypatch, "    r: int = 8\n")
    event = refusal(use_tomorrow=True)
    assert event["code"] == "merge.unknown-setting"
    assert "use_tomorrow=True, which PEFT 9.1 does not know" in event["what"]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_an_unknown_setting_that_says_nothing_is_no_matter(value):
    assert through_peft(use_tomorrow=value) is None


def test_a_setting_that_only_a_newer_peft_knows_is_left_to_it_unless_it_is_its_default(
    tmp_path, monkeypatch
):
    fields = (
        "    group: int = field(default=16, metadata={})\n"
        "    mode: Literal['a', 'b'] = 'a'\n"
        "    extra: Extra = field(default_factory=Extra)\n"
    )
    write_peft(tmp_path, monkeypatch, fields)
    assert through_peft(group=16, mode="a") is None
    assert through_peft(group=32, mode="a") == "only PEFT knows what group means"
    assert through_peft(mode="b", extra={"x": 1}) == "only PEFT knows what mode, extra means"


@pytest.mark.skipif(importlib.util.find_spec("peft") is not None, reason="there is a PEFT here")
def test_without_peft_an_unknown_setting_is_refused_and_the_rest_is_streamed():
    assert "no PEFT is installed" in refusal(use_tomorrow=True)["what"]
    assert through_peft() is None


def test_an_initialization_nobody_knows_is_refused():
    event = refusal(init_lora_weights="tomorrow")
    assert event["code"] == "merge.unknown-setting"
    assert "init_lora_weights='tomorrow'" in event["what"]


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 0},
        {"r": "8"},
        {"r": True},
        {"lora_alpha": None},
        {"lora_alpha": math.nan},
        {"rank_pattern": {"q_proj": -1}},
        {"alpha_pattern": {"q_proj": "16"}},
        {"alpha_pattern": ["q_proj"]},
        {"rank_pattern": {"q_proj(": 4}},
    ],
    ids=str,
)
def test_a_rank_or_scale_that_is_none_is_told_as_damage(settings):
    assert refusal(**settings)["code"] == "adapter.damaged"


def test_a_bias_that_peft_does_not_have_is_refused():
    assert "bias='some'" in refusal(bias="some")["what"]


def test_a_setting_that_an_older_peft_would_pass_over_is_refused_where_it_is_to_merge():
    known = {"r", "peft_type", "lora_alpha", "bias", "init_lora_weights"}
    adapter_rules.refuse_unknown(PLAIN, known)
    with pytest.raises(WorkerError) as caught:
        adapter_rules.refuse_unknown({**PLAIN, "target_parameters": ["experts.w"]}, known)
    assert "target_parameters" in caught.value.event["what"]


def test_scale_is_alpha_over_rank_or_its_root():
    assert adapter_rules.scale({"lora_alpha": 16}, "layers.0.q_proj", 4) == 4.0
    assert adapter_rules.scale({"lora_alpha": 16, "use_rslora": True}, "layers.0.q_proj", 4) == 8.0
    assert adapter_rules.scale({}, "layers.0.q_proj", 8) == 1.0


def test_the_first_pattern_that_matches_the_end_of_the_name_wins():
    patterns = {"q_proj": 2, "layers.0.q_proj": 4, r"layers\.\d+\.v_proj": 6, "proj": 9}
    config = {"r": 8, "lora_alpha": 8, "rank_pattern": patterns, "alpha_pattern": patterns}

    def rank(module: str) -> int:
        return adapter_rules.expected_rank(config, module)

    assert rank("model.layers.0.q_proj") == 2
    assert rank("model.layers.12.v_proj") == 6
    assert rank("model.layers.12.v_proj.x") == 8
    assert rank("model.layers.0.o_proj") == 8, "a pattern begins where a name does"
    assert adapter_rules.scale(config, "model.layers.0.q_proj", 2) == 1.0


def test_a_missing_config_and_a_damaged_one_are_told_apart(tmp_path):
    with pytest.raises(WorkerError) as caught:
        adapter_rules.read_config(tmp_path)
    assert caught.value.event["code"] == "adapter.no-config"
    path = tmp_path / "adapter_config.json"
    for text in (b'{"peft_type": "LO', b"[]", b'{"r": 8}', b"\xff\xfe", b'{"peft_type": 3}'):
        path.write_bytes(text)
        with pytest.raises(WorkerError) as caught:
            adapter_rules.read_config(tmp_path)
        assert caught.value.event["code"] == "adapter.damaged"
    path.write_text(json.dumps(PLAIN))
    assert adapter_rules.read_config(tmp_path) == PLAIN
