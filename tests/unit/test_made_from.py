"""What a checkpoint was made from, in a record and out of it again."""

from __future__ import annotations

import json

import pytest

from quantui.domain.caches.made_from import Ingredient, MadeFrom

BASE = Ingredient("owner/llama", "1a2b3c4d" * 5, size=16_000_000_000)
LORA = Ingredient("./lora", path="/home/me/lora", size=80_000_000, weight=0.5)


def test_it_comes_back_from_json_as_it_was():
    made = MadeFrom(BASE, (LORA,), ("merge", "owner/llama", "./lora"))
    assert MadeFrom.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_in_words_a_hub_model_has_its_commit_and_a_folder_its_place():
    assert MadeFrom(BASE, (LORA,)).words == (
        "owner/llama @ 1a2b3c4d",
        "adapter 0.5 x /home/me/lora",
    )
    assert MadeFrom(BASE, (LORA,)).short == "llama + lora"


def test_what_lies_in_a_folder_cannot_be_downloaded():
    assert BASE.on_hub
    assert not LORA.on_hub


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {"base": None, "adapters": [], "command": []},
        {"base": {"ref": ""}, "adapters": [], "command": []},
        {"base": {"ref": 3}, "adapters": [], "command": []},
        {"base": {"ref": "a/b"}, "adapters": {}, "command": []},
    ],
)
def test_what_is_no_such_record_is_none(told):
    assert MadeFrom.from_dict(told) is None


def test_fields_of_the_wrong_kind_are_unknown():
    told = {
        "base": {"ref": "a/b", "revision": 3, "path": [], "size": -1},
        "adapters": [{"ref": "c/d", "weight": float("nan")}, "x", {}],
        "command": ["merge", 4],
    }
    made = MadeFrom.from_dict(told)
    assert made == MadeFrom(Ingredient("a/b"), (Ingredient("c/d"),), ("merge",))
