import json
from pathlib import Path

import pytest

from utils.config import Config
from utils.config_file import load_config
from utils.config_schema import PATH, config_schema, schema_text
from utils.config_sections import ModelConfig

CONFIGS = PATH.parent
STUDIES = CONFIGS / "studies"  # they are no configurations
FILES = [path for path in sorted(CONFIGS.rglob("*.json")) if path != PATH and path.parent != STUDIES]


def unknown_keys(values: dict, described: dict, schema: dict) -> list[str]:
    """The keys of a configuration that the schema does not know, in every section."""
    unknown = []
    for key, value in values.items():
        found = described["properties"].get(key)
        if found is None:
            unknown.append(key)
        elif "$ref" in found and isinstance(value, dict):
            unknown += unknown_keys(value, schema["$defs"][found["$ref"].rpartition("/")[2]], schema)
    return unknown


def test_schema_in_the_repository_is_current():
    assert PATH.read_text() == schema_text(), "python3 -m utils.config_schema"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_names_the_schema_and_has_only_keys_that_it_knows(path: Path):
    values = json.loads(path.read_text())
    assert (path.parent / values["$schema"]).resolve() == PATH.resolve()
    assert unknown_keys(values, config_schema(), config_schema()) == []


def test_schema_refuses_other_keys_and_requires_none():
    schema = config_schema()
    for described in (schema, *schema["$defs"].values()):
        assert described["additionalProperties"] is False
        assert "required" not in described  # a base may have it


def test_schema_has_meaning_default_and_bounds_of_a_key():
    described = config_schema()["$defs"]["ModelConfig"]["properties"]["pos_thresh_value"]
    field = ModelConfig.model_fields["pos_thresh_value"]
    assert (described["description"], described["default"]) == (field.description, field.default)
    assert (described["minimum"], described["maximum"]) == (0, 1)


def test_schema_knows_base_and_the_keys_of_the_original():
    schema = config_schema()
    assert {"base", "$schema", *Config.model_fields, *Config.obsolete} == set(schema["properties"])
    for section in ("ModelConfig", "StreamConfig", "ValidationConfig"):
        assert schema["$defs"][section]["properties"]["stride"]["deprecated"]


def test_configuration_may_name_a_schema(tmp_path):
    keys = {"name": "Baseline", "experim_name": "run", "dataset": "voc", "data_dir": "data"}
    keys |= {"n_labeled_examples": 4, "num_images_all": 8, "trainer": {"epochs": 1}}
    (tmp_path / "run.json").write_text(json.dumps({"$schema": "./schema.json", **keys}))
    assert load_config(tmp_path / "run.json").model_dump() == Config.model_validate(keys).model_dump()
