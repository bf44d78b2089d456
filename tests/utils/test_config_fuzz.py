"""Any JSON gives a configuration or one message. ``FUZZ_EXAMPLES=20000`` tries that many of each kind."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.utils.test_config_file import LIKE_THE_ORIGINALS, MINIMAL
from utils.config import Config
from utils.config_file import load_config
from utils.errors import UsageError

VALID = json.loads(LIKE_THE_ORIGINALS)
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 100))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def sections(values: dict, path: tuple[str, ...] = ()):
    """The path of every key of a configuration."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from sections(value, (*path, key))


PATHS = sorted(sections(VALID))
text = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates as well
key = st.one_of(st.sampled_from(sorted({path[-1] for path in PATHS} | {"base", "data", "classes"})), text)
extreme = st.sampled_from(
    [0, -1, 2**31, 2**63, 2**64, 10**30, 10**4299, 1e308, 5e-324, -0.0, float("nan"), float("inf"), "", "\0", "..",
     "/", "\n", "x" * 5000, "\ud800", "true", "é", [], {}, [[]], None, True]
)  # fmt: skip
scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text, extreme)
value = st.recursive(
    scalar, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(key, inner, max_size=4)), max_leaves=8
)


@pytest.fixture
def load(tmp_path):
    """Loads a configuration from these bytes; gives None where one message refuses it."""

    def load(content: bytes, overrides=()) -> Config | None:
        path = tmp_path / "config.json"
        path.write_bytes(content)
        try:
            config = load_config(path, list(overrides))
        except UsageError:
            return None
        assert config.run_dir.resolve().parent == Path(config.trainer.save_dir).resolve()
        return config

    return load


def as_json(values) -> bytes:
    return json.dumps(values).encode()


def test_what_is_mutated_below_is_valid(load):
    assert load(as_json(VALID)) is not None


@fuzz
@given(values=value)
def test_any_json_gives_a_configuration_or_a_message(load, values):
    load(as_json(values))


@fuzz
@given(values=st.dictionaries(key, value, max_size=6))
def test_any_keys_over_a_valid_configuration_give_one_or_a_message(load, values):
    load(as_json({**VALID, **values}))


@fuzz
@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), value | st.just("delete")), min_size=1, max_size=3))
def test_valid_configuration_with_other_values_gives_one_or_a_message(load, changes):
    values = json.loads(LIKE_THE_ORIGINALS)
    for (*path, last), new in changes:
        section = values
        for name in path:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.pop(last, None)
            if new != "delete":
                section[last] = new
    load(as_json(values))


@fuzz
@given(place=st.integers(0, len(LIKE_THE_ORIGINALS)), new=st.binary(max_size=4), cut=st.integers(0, 30))
def test_damaged_text_gives_a_configuration_or_a_message(load, place, new, cut):
    whole = LIKE_THE_ORIGINALS.encode()
    load(whole[:place] + new + whole[place + cut :])


@fuzz
@given(path=st.sampled_from(PATHS) | st.lists(text, max_size=3).map(tuple), new=value.map(json.dumps) | text)
def test_any_override_gives_a_configuration_or_a_message(load, path, new):
    load(as_json(VALID), [f"{'.'.join(path)}={new}"])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe{\x00", b"[" * 100_000, b'{"a":' * 100_000, b'{"model":' * 400 + b"1" + b"}" * 400,
        b'{"trainer":' + b"[" * 900 + b"]" * 900 + b"}", b'{"datalist":' + b"1" * 5000 + b"}", b'{"name": NaN}',
        b'{"base": "\\u0000"}', b'{"base": "\\ud800"}', b'{"base": "."}', b'{"base": "/dev/zero"}',
        as_json({"base": "x" * 5000}), b'{"name": "Baseline", "name": "USRN"}',
        as_json({**MINIMAL, "data_dir": "a\0b"}),
    ],
    ids=range(15),
)  # fmt: skip
def test_content_that_is_no_configuration_gets_a_message(load, content):
    assert load(content) is None


@pytest.mark.parametrize("override", ["datalist=" + "1" * 5000, "classes=" + "[" * 100_000])
def test_override_that_no_parser_takes_gets_a_message(load, override):
    assert load(as_json(MINIMAL), [override]) is None


def test_key_that_stands_twice_is_named(tmp_path):
    (tmp_path / "twice.json").write_text('{"trainer": {"epochs": 1, "epochs": 2}}')
    with pytest.raises(UsageError, match=r"twice\.json: .* key 'epochs' stands twice"):
        load_config(tmp_path / "twice.json")


def test_base_that_is_a_loop_of_links_gets_a_message(tmp_path):
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "run.json").write_text('{"base": "loop.json"}')
    with pytest.raises(UsageError, match=r"loop\.json: cannot read the configuration"):
        load_config(tmp_path / "run.json")


def test_base_of_two_files_that_build_on_the_same_is_read_once(tmp_path):
    (tmp_path / "0.json").write_bytes(as_json(MINIMAL))
    for number in range(1, 26):  # 2^25 ways lead from the last to the first
        (tmp_path / f"{number}.json").write_bytes(as_json({"base": 2 * [f"{number - 1}.json"]}))
    assert load_config(tmp_path / "25.json") == load_config(tmp_path / "0.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({f"key{number}": 1 for number in range(100_000)}, "it has [0-9,]+ bytes"),
        ({f"k{number}": 1 for number in range(10_000)}, "unknown key k0; .*… and [0-9,]+ more"),
        ({"model": {"layer" * 1000: 1}}, r"unknown key model.layerlayer.{41}\.\.\.;"),
        ({"base": ["0.json"] * 101}, "more than 100 files"),
    ],
)
def test_thousands_of_mistakes_get_one_message_that_can_be_read(tmp_path, values, message):
    (tmp_path / "many.json").write_bytes(as_json(values))
    with pytest.raises(UsageError, match=rf"(?s)many\.json: .*{message}") as error:
        load_config(tmp_path / "many.json")
    assert len(str(error.value)) < 10_000


def test_chain_of_bases_without_end_is_refused(tmp_path):
    for number in range(102):
        (tmp_path / f"{number}.json").write_bytes(as_json({"base": f"{number + 1}.json"}))
    with pytest.raises(UsageError, match="more than 100 files"):
        load_config(tmp_path / "0.json")


@pytest.mark.parametrize("as_base", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind, as_base):
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    (tmp_path / "run.json").write_text('{"base": "x.json"}')
    with pytest.raises(UsageError, match=r"x\.json: cannot read the configuration \(it is"):
        load_config(tmp_path / "run.json" if as_base else path)
