"""The configuration's JSON schema, by which editors complete and check keys: ``python3 -m utils.config_schema``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.config import Config
from utils.config_file import COMMENT
from utils.config_sections import Section

PATH = Path(__file__).parent.parent / "configs" / "schema.json"


def config_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file.

    No key is required, since any may come from a file that ``base`` names; ``load_config`` says which one is missing.
    """
    schema = Config.model_json_schema()
    sections = {section.__name__: section for section in _kinds_of(Section)}
    for name, described in {**schema["$defs"], Config.__name__: schema}.items():
        described.pop("required", None)
        described["patternProperties"] = {f"^{COMMENT}": {"description": "a comment"}}
        for key in sorted(sections[name].obsolete):
            described["properties"][key] = {
                "description": "a key of the original that no longer means anything",
                "deprecated": True,
            }
    schema["properties"] |= {
        "$schema": {"description": "this schema, for editors", "type": "string"},
        "base": {
            "description": "a file, or a list of files, whose keys this one builds on; relative to its own folder",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _kinds_of(section: type[Section]) -> Iterator[type[Section]]:
    for kind in section.__subclasses__():
        yield kind
        yield from _kinds_of(kind)


def schema_text() -> str:
    return json.dumps(config_schema(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema_text())
    print(PATH)
