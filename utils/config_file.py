"""From a JSON file and ``--set`` overrides to a ``Config``: bases are merged, mistakes get one clear message."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from utils.config import Config, Origin
from utils.errors import UsageError
from utils.inputs import read_plain, without_repetition

MAX_BYTES = 2**18
"""Of a configuration, which has some hundred lines: a larger file is something else."""
MAX_BASES = 100
"""Bases that one file names, and files that build on each other."""
COMMENT = "//"
"""Keys that begin so say something to readers, in any section, and nothing to the program."""
SHOWN = 20
"""Mistakes in one message."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, merge and validate a configuration.

    Parameters
    ----------
    path
        A JSON file. Its key ``base`` may name one file or a list of files, relative to its own folder, whose
        keys it overrides; later bases override earlier ones.
    overrides
        ``key.path=value`` strings; the value is JSON, or a plain string where it is not.

    Raises
    ------
    UsageError
        The file is missing or no JSON, a key is unknown or of the wrong type.
    """
    path = Path(path)
    try:
        values = _read_with_bases(path, (), {})
        for override in overrides:
            _apply_override(values, override)
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(_describe(error, path)) from None
    except RecursionError:
        raise UsageError(f"{path}: the configuration is nested too deep.") from None
    config._origin = Origin(path, tuple(overrides))
    return config


def _read_with_bases(path: Path, parents: tuple[Path, ...], known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """The keys of a file over those of its bases; each file is read once, whatever number of files build on it."""
    try:
        text = read_plain(path, most=MAX_BYTES).decode("utf-8-sig")
        resolved = path.resolve()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file in UTF-8.") from None
    except (OSError, ValueError, RuntimeError) as error:  # the latter two: names that cannot be, a loop of links
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot read the configuration ({reason}).") from None
    if resolved in known:
        return known[resolved]
    if resolved in parents:
        raise UsageError(f'{path}: "base" leads back to this file; take it out of one of its bases.')
    try:
        values = json.loads(text, object_pairs_hook=without_repetition)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UsageError(f"{path}: is not valid JSON, {place}.") from None
    except ValueError as error:  # a number of thousands of digits, a key that stands twice
        raise UsageError(f"{path}: is not a configuration: {error}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must hold one JSON object with the configuration's keys.")

    values = _without_comments(values)
    values.pop("$schema", None)  # for editors (utils/config_schema.py)
    bases = values.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UsageError(f'{path}: key "base" must be a file name or a list of them.')
    if len(bases) > MAX_BASES or len(parents) >= MAX_BASES:
        raise UsageError(f'{path}: key "base" leads to more than {MAX_BASES} files; a run needs a few.')
    merged: dict[str, Any] = {}
    for base in bases:
        merged = _merge(merged, _read_with_bases(path.parent / base, (*parents, resolved), known))
    known[resolved] = _merge(merged, values)
    return known[resolved]


def _without_comments(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {key: _without_comments(value) for key, value in values.items() if not key.startswith(COMMENT)}


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both_sections = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_sections else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write it as key=value, for example trainer.epochs=5.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {override}: {section} is not a section.")
    values[last] = value


def _describe(error: ValidationError, path: Path) -> str:
    lines = []
    problems = error.errors(include_url=False, include_context=False)
    for problem in problems[:SHOWN]:
        location = [part for part in problem["loc"] if isinstance(part, str)]
        if problem["type"] == "extra_forbidden":
            lines.append(_unknown_key(location))
        elif problem["type"] == "missing":
            lines.append(f"key {'.'.join(location)} is missing")
        else:
            key = ".".join(_known_prefix(location)) or "the configuration"
            lines.append(f"key {key}: {problem['msg']} (it is {_short(repr(problem['input']))})")
    unique = list(dict.fromkeys(lines))
    if len(problems) > SHOWN:
        unique.append(f"… and {len(problems) - SHOWN:,} more")
    return f"{path}: " + ("\n  ".join(["", *unique]).strip("\n") if len(unique) > 1 else unique[0] + ".")


def _unknown_key(location: list[str]) -> str:
    *sections, key = location
    section: Any = Config
    for name in sections:
        section = _section_type(section, name)
    known = list(section.model_fields)
    nearest = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*sections, nearest[0]])}?" if nearest else f"known here: {', '.join(known)}"
    return f"unknown key {_short('.'.join(location))}; {hint}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _known_prefix(location: list[str]) -> list[str]:
    """The part of a location that is a key path; pydantic appends the alternatives of a union to it."""
    prefix: list[str] = []
    section: Any = Config
    for name in location:
        if section is None or name not in section.model_fields:
            break
        prefix.append(name)
        section = _section_type(section, name)
    return prefix


def _section_type(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = section.model_fields[name].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
