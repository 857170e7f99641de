"""A profile is read strictly: a mistake is refused with its line and the nearest name, and secrets stay out."""

from __future__ import annotations

import pytest

from quantui.domain.draft import SECTIONS, Draft, options_of
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.profile import SCHEMA, apply_overrides, parse_profile

MODEL = '[model]\nid = "owner/base"\n'
SMALL = f"schema = 1\n{MODEL}"


def refused(text):
    with pytest.raises(QuantuiError) as raised:
        parse_profile(text, name="prod.toml")
    assert raised.value.exit_code == ExitCode.BAD_INPUT
    return raised.value


def set_refused(*assignments):
    with pytest.raises(QuantuiError) as raised:
        apply_overrides(parse_profile(SMALL), list(assignments))
    assert raised.value.exit_code == ExitCode.BAD_INPUT
    return raised.value


def test_what_a_profile_leaves_out_has_its_default():
    assert parse_profile(SMALL) == Draft().with_option("model", "id", "owner/base")


def test_every_kind_of_value_is_read():
    draft = parse_profile(
        SMALL
        + "[serve]\nport = 8001\nenforce_eager = true\nvisible_devices = [1, 0]\n"
        + 'gpu_memory_utilization = 1\nserved_name = "x"\nextra_args = { seed = 1, swap-space = 4.5 }\n'
    )
    serve = draft.serve
    assert (serve.port, serve.enforce_eager, serve.visible_devices) == (8001, True, (1, 0))
    assert serve.gpu_memory_utilization == 1.0
    assert isinstance(serve.gpu_memory_utilization, float)
    assert serve.extra_args == {"seed": 1, "swap-space": 4.5}


@pytest.mark.parametrize(
    ("text", "line", "says", "fix"),
    [
        (SMALL + "[serve]\n\nprot = 8001\n", 6, "unknown key `serve.prot`", "`serve.port`"),
        (SMALL + "[sreve]\nport = 1\n", 4, "unknown key `sreve`", "`serve`"),
        (SMALL + "[serve]\nrecreate = true\n", 5, "unknown key `serve.recreate`", "`merge.recreate`"),
        (SMALL + "[merge]\nzzz = true\n", 5, "unknown key `merge.zzz`", "Known here: device"),
        (SMALL + "serve.prot = 1\n", 4, "unknown key `model.serve`", "Known here: id"),
        ("schema = 1\nserve.prot = 1\n" + MODEL, 2, "unknown key `serve.prot`", "`serve.port`"),
        ("schema = 1\nserve = { prot = 1 }\n" + MODEL, 2, "unknown key `serve.prot`", "`serve.port`"),
        (SMALL + '[check]\nprompt = """\nprot = 1\n"""\nprot = 1\n', 8, "unknown key `check.prot`", ""),
        (SMALL + "[serve] # how\nprot = 1\n", 5, "unknown key `serve.prot`", ""),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_name(text, line, says, fix):
    error = refused(text)
    assert error.code == "profile.unknown-key"
    assert f"prod.toml line {line}: " in error.what
    assert says in error.what
    assert fix in error.fix


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("[serve]\nport = '8001'", "`serve.port` must be a whole number, not the string '8001'"),
        ("[serve]\nport = 8001.0", "must be a whole number"),
        ("[serve]\nport = true", "must be a whole number, not true"),
        ("[serve]\nenforce_eager = 1", "must be true or false, not the number 1"),
        ("[serve]\ngpu_memory_utilization = 'half'", "must be a number"),
        ("[serve]\nhost = 1", "must be a string"),
        ("[serve]\nvisible_devices = 0", "must be a list of whole numbers"),
        ("[serve]\nvisible_devices = [0, true]", "must be a list of whole numbers"),
        ("[serve]\nvisible_devices = ['0']", "must be a list of whole numbers"),
        ("[serve]\nextra_args = [1]", "must be a table"),
        ("[serve]\nserved_name = 2026-01-01", "must be a string"),
        ("[serve]\nserved_name = {}", "must be a string, not a table"),
    ],
)
def test_a_wrong_type_is_refused_with_what_it_should_be(lines, says):
    error = refused(f"{SMALL}{lines}\n")
    assert error.code == "profile.wrong-type"
    assert says in error.what
    assert "prod.toml line 5: " in error.what


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("[serve]\nport = 65536", "must be at most 65535, not 65536"),
        ("[serve]\nport = -1", "must be at least 0, not -1"),
        ("[serve]\nvisible_devices = [-1]", "must be at least 0"),
        ("[serve]\ngpu_memory_utilization = 1.1", "must be at most 1"),
        ("[serve]\ngpu_memory_utilization = nan", "must be a finite number"),
        ("[serve]\nkv_cache_gib = inf", "must be a finite number"),
        ("[recorded]\nload_seconds = nan", "must be a finite number"),
        ("[check]\nmax_tokens = 0", "must be at least 1"),
        ("[serve]\nmax_model_len = " + "9" * 400, "must be at most"),
        ("[check]\nmax_perplexity = " + "9" * 400, "must be at most"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_limit(lines, says):
    error = refused(f"{SMALL}{lines}\n")
    assert error.code == "profile.out-of-range"
    assert says in error.what


def test_a_choice_that_does_not_exist_is_refused_with_the_nearest():
    error = refused(SMALL + '[merge]\ndevice = "gpus"\n')
    assert error.code == "profile.bad-choice"
    assert '"auto", "gpu", "cpu"' in error.what
    assert 'nearest: "gpu"' in error.what


def test_a_device_named_twice_is_refused():
    assert "twice" in refused(SMALL + "[serve]\nvisible_devices = [0, 0]\n").what


LORA = SMALL + '[adapter]\nid = "owner/lora"\n'


def test_several_adapters_are_read_with_their_weights():
    draft = parse_profile(LORA + 'also = ["./style", "owner/third@main"]\nweights = [1, 0.5, -2]\n')
    assert draft.adapter.refs == ("owner/lora", "./style", "owner/third@main")
    assert draft.adapter.weights == (1.0, 0.5, -2.0)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("also = './style'", "`adapter.also` must be a list of strings, not the string './style'"),
        ("also = [1]", "`adapter.also` must be a list of strings, not the list [1]"),
        ("also = ['']", "`adapter.also` must not be empty"),
        ("also = ['owner/lora']", "`adapter.also` names an adapter twice"),
        ("weights = [1.0, 0.5]", "`adapter.weights` has 2 numbers for 1 adapter"),
        ("weights = ['1']", "`adapter.weights` must be a list of numbers"),
        ("weights = [true]", "`adapter.weights` must be a list of numbers"),
        ("weights = [inf]", "`adapter.weights` must be a finite number"),
        ("weights = [0]", "`adapter.weights` holds a 0"),
        ("wieghts = [1]", "unknown key `adapter.wieghts`"),
    ],
)
def test_adapters_that_make_no_sense_are_refused_with_their_line(lines, says):
    error = refused(f"{LORA}{lines}\n")
    assert f"prod.toml line 6: {says}" in error.what


def test_further_adapters_need_a_first():
    error = refused(SMALL + "[adapter]\nalso = ['owner/lora']\n")
    assert error.code == "profile.contradiction"
    assert "adapter.id" in error.fix


@pytest.mark.parametrize("lines", ["also = ['./style']", "weights = [0.5]"])
def test_what_vllm_cannot_serve_unmerged_is_not_promised(lines):
    error = refused(f'{LORA}{lines}\n[merge]\non_failure = "serve-lora"\n')
    assert "prod.toml line 8: `merge.on_failure`" in error.what
    parse_profile(LORA + '[merge]\non_failure = "serve-lora"\n')


def test_set_takes_a_list_and_sees_that_it_belongs_together():
    draft = parse_profile(LORA)
    changed = apply_overrides(draft, ['adapter.also=["./style"]', "adapter.weights=[1, 0.5]"])
    assert changed.adapter.refs == ("owner/lora", "./style")
    with pytest.raises(QuantuiError, match="has 2 numbers for 1 adapter"):
        apply_overrides(draft, ["adapter.weights=[1, 0.5]"])


def test_an_option_of_two_sections_is_named_with_both():
    assert "`merge.dtype` or `serve.dtype`" in refused(SMALL + "dtype = 'float16'\n").fix


def test_a_section_that_is_no_table_is_refused():
    for text in ("schema = 1\nserve = 3\n" + MODEL, SMALL + "[[serve]]\nport = 1\n"):
        error = refused(text)
        assert "`serve` must be a table" in error.what
        assert "[serve]" in error.fix


def test_a_profile_without_schema_is_refused_with_the_line_to_add():
    error = refused(MODEL)
    assert error.code == "profile.no-schema"
    assert f"schema = {SCHEMA}" in error.fix


def test_a_newer_schema_asks_for_a_newer_quantui():
    error = refused(f"schema = {SCHEMA + 1}\nunheard_of = 1\n")
    assert error.code == "profile.newer-schema"
    assert "pip install --upgrade" in error.fix


@pytest.mark.parametrize("schema", ["true", "'1'", "1.0", "0"])
def test_a_schema_that_is_no_version_is_refused(schema):
    error = refused(f"schema = {schema}\n{MODEL}")
    assert error.code == "profile.wrong-type"
    assert "line 1" in error.what


@pytest.mark.parametrize(
    "text",
    ["schema = \n", "schema = 1\n[model\n", "schema = 1\nschema = 1\n", "x = " + "[" * 10_000,
     "schema = " + "1" * 5000],
    ids=["no value", "open table", "twice", "nested without end", "thousands of digits"],
)  # fmt: skip
def test_what_is_not_toml_is_refused(text):
    assert refused(text).code == "profile.syntax"


def test_a_profile_needs_a_model_or_an_adapter_that_names_one():
    assert refused("schema = 1\n").code == "profile.no-model"
    assert refused('schema = 1\n[model]\nid = ""\n').code == "profile.no-model"
    assert parse_profile('schema = 1\n[adapter]\nid = "owner/lora"\n').adapter.id == "owner/lora"


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('[serve]\napi_key = "x"', "api_key"),
        ('[serve]\nextra_args = { api-key = "x" }', "api-key"),
        ('[serve]\nextra_args = { API_KEY = "x" }', "API_KEY"),
        ('[serve]\nextra_args = { "--hf-token" = "x" }', "--hf-token"),
        ('[serve.extra_args]\napi-key = "x"', "api-key"),
        ('[model]\ntoken = "x"', "token"),
        ('hf_token = "x"', "hf_token"),
    ],
)
def test_a_secret_is_refused_with_the_place_where_it_belongs(lines, key):
    head = SMALL if "[model]" not in lines and "[" in lines else "schema = 1\n"
    error = refused(f"{head}{lines}\n")
    assert error.code == "profile.secret"
    assert f"`{key}`" in error.what
    assert "line" in error.what
    assert "serve.api_key_env" in error.fix


def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_repeated():
    error = refused(SMALL + '[serve]\napi_key_env = "sk-123-secret"\n')
    assert "name of an environment variable" in error.what
    assert "sk-123" not in str(error)


def test_a_variables_name_cannot_smuggle_a_command_into_the_printed_shell_line():
    assert refused(SMALL + "[serve]\napi_key_env = 'X$(id)'\n").code == "profile.bad-string"


@pytest.mark.parametrize(
    ("argument", "option"),
    [("port", "serve.port"), ("--host", "serve.host"), ("served_model_name", "serve.served_name")],
)
def test_an_argument_that_quantui_must_know_has_its_own_option(argument, option):
    error = refused(f'{SMALL}[serve]\nextra_args = {{ "{argument}" = "x" }}\n')
    assert f"set {option}" in error.what


@pytest.mark.parametrize("text", [r'"a\u0000b"', '""'])
def test_a_string_that_nothing_can_be_named_is_refused(text):
    assert refused(f"{SMALL}[adapter]\nid = {text}\n").code == "profile.bad-string"


def test_set_changes_options_in_turn():
    draft = apply_overrides(
        parse_profile(SMALL), ["serve.port=8001", "serve.port = 8002", "merge.recreate=true"]
    )
    assert (draft.serve.port, draft.merge.recreate) == (8002, True)


def test_set_needs_no_quotes_around_a_string():
    draft = apply_overrides(
        parse_profile(SMALL),
        ["check.prompt=Who # are you?", 'serve.served_name="quoted"', "adapter.id=./my lora"],
    )
    assert draft.check.prompt == "Who # are you?"
    assert draft.serve.served_name == "quoted"
    assert draft.adapter.id == "./my lora"


@pytest.mark.parametrize("text", ["1234567", "12e45", "true", "2026-01-01", "a\nb = 1", "1\nb = 2"])
def test_set_takes_what_looks_like_another_type_as_a_string_where_one_is_wanted(text):
    draft = apply_overrides(parse_profile(SMALL), [f"model.revision={text}"])
    assert draft.model.revision == text


def test_set_with_nothing_after_the_sign_unsets_an_option():
    draft = parse_profile(SMALL + '[adapter]\nid = "owner/lora"\n[serve]\nmax_model_len = 99\n')
    draft = apply_overrides(draft, ["adapter.id=", "serve.max_model_len="])
    assert (draft.adapter.id, draft.serve.max_model_len) == (None, None)


def test_set_reaches_single_arguments_of_vllm():
    draft = parse_profile(SMALL + "[serve]\nextra_args = { seed = 1 }\n")
    draft = apply_overrides(draft, ["serve.extra_args.swap-space=4"])
    assert draft.serve.extra_args == {"seed": 1, "swap-space": 4}


@pytest.mark.parametrize(
    ("assignment", "code"),
    [
        ("serve.port", "arguments.bad-set"),
        ("port=1", "arguments.bad-set"),
        ("serve.=1", "arguments.bad-set"),
        ("serve.prot=1", "profile.unknown-key"),
        ("srv.port=1", "profile.unknown-key"),
        ("serve.port=many", "profile.wrong-type"),
        ("serve.port=", "profile.wrong-type"),
        ("serve.host=", "profile.bad-string"),
        ("serve.port=99999", "profile.out-of-range"),
        ("serve.api_key=x", "profile.secret"),
        ("serve.extra_args.api_key=x", "profile.secret"),
        ("check.prompt=\udcff", "profile.bad-string"),
    ],
)
def test_a_wrong_set_is_refused(assignment, code):
    assert set_refused(assignment).code == code


def test_every_option_has_a_default_that_the_profile_would_accept():
    for name, cls in SECTIONS.items():
        for key, (_, option) in options_of(cls).items():
            value = getattr(getattr(Draft(), name), key)
            shown = option.example if value is None else value
            if name != "recorded":
                assert option.help.endswith("."), f"{name}.{key}"
                assert shown is not None, f"{name}.{key} has no example"
