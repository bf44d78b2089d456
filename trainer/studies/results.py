"""``docs/results.md`` from the ``study.json`` files in ``docs/studies/``: ``python3 -m trainer.studies.results``."""

import json
from pathlib import Path
from typing import Any

from trainer.studies.runner import ROOT
from trainer.studies.table import configuration_hash, interval_notes, quality_text, text_table
from utils.files import write_whole

STUDIES, PAGE = ROOT / "docs" / "studies", ROOT / "docs" / "results.md"
_HEAD = """# Results

This page is written by `python3 -m trainer.studies.results` from the files in `docs/studies/`, each of which a study
has written ([studies.md](studies.md) says how), and the comments from those beside them. The command above a table
repeats it. IoU is that of the best model by validation, so it is optimistic, for every variant alike. Differences are
in points; the interval is that of 95 % of 2,000 paired resamples of images and seeds.
"""


def results_page(studies: list[dict[str, Any]]) -> str:
    """The page of the contents of ``study.json`` files."""
    return "\n".join([_HEAD, *map(_section, studies)])


def _section(contents: dict[str, Any]) -> str:
    lines = [
        f"## {contents['study']}",
        "",
        contents["question"],
        "",
        f"`{contents['command']}`",
        "",
        text_table(contents),
        *(["", " ".join(notes)] if (notes := interval_notes(contents)) else []),
        *(["", quality] if (quality := quality_text(contents)) else []),
        *(["", contents["comment"]] if contents["comment"] else []),
    ]
    lines += ["", "| run | configuration | seeds | commit | on |", "| --- | --- | --- | --- | --- |"]
    for name, variant in contents["variants"].items():
        made = variant["seeds"].values()
        where = sorted({f"{seed['device']} ({contents['machine']}), PyTorch {seed['torch']}" for seed in made})
        cells = (
            name,
            f"`{configuration_hash(variant['settings'])}`",
            ", ".join(variant["seeds"]),
            ", ".join(f"`{commit}`" for commit in sorted({seed["commit"] or "–" for seed in made})),
            "; ".join(where),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def read_studies(folder: Path = STUDIES) -> list[dict[str, Any]]:
    """The contents of the ``study.json`` files, in the order of their names, each with its ``comment``, or ""."""
    found = []
    for path in sorted(folder.glob("*.json")):
        page = path.with_suffix(".md")
        comment = page.read_text().strip() if page.exists() else ""
        found.append(json.loads(path.read_text()) | {"comment": comment})
    return found


if __name__ == "__main__":
    write_whole(PAGE, results_page(read_studies()))
