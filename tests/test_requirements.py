"""The files of requirements and their lock say the same, for everything that they bring along."""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def pins(*names: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for name in names for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_exactly_and_locked_at_the_same_version():
    locked = {(canonical(pin.name), str(pin.specifier)) for pin in pins("requirements.lock")}
    for pin in pins("requirements.txt", "requirements-dev.txt"):
        assert str(pin.specifier).startswith("==")
        assert (canonical(pin.name), str(pin.specifier)) in locked, "see the head of requirements.lock for its command"


def test_the_lock_has_everything_that_the_requirements_bring_along():
    locked = {canonical(pin.name) for pin in pins("requirements.lock")}
    open_ones, seen = [(pin.name, "") for pin in pins("requirements.txt", "requirements-dev.txt")], set()
    while open_ones:
        name, extra = package = open_ones.pop()
        if package in seen:
            continue
        seen.add(package)
        assert canonical(name) in locked
        for need in map(Requirement, metadata.requires(name) or []):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                open_ones += [(need.name, wanted) for wanted in ("", *need.extras)]
