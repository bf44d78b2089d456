"""How right the pseudo labels of a study's runs were, in the four quarters of the iterations that have them."""

from collections.abc import Iterator
from typing import Any

from trainer.evaluation.label_quality import Quality
from trainer.evaluation.run_json import read_history
from trainer.planning.budget import as_stored
from trainer.studies.description import Run
from utils.schedule import Schedule

QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
COLUMNS = {
    "confident": "confident",
    "precision before the gate": "precision before the gate",
    "precision": "precision after it",
    "recall": "recall",
    "vetoed": "vetoed",
    "vetoed rightly": "rightly",
    "subclass used": "subclass used",
}
NOTE = (
    "Pseudo labels, judged by masks that training does not see, in %, mean over the seeds. Quarters are those of the "
    "iterations that have pseudo labels; groups and classes are of the last one. Confident: labels above the threshold "
    "before the gate, of the pixels; of a class, its labels against its pixels. Recall: pixels with their right label. "
    "Vetoed: of the confident ones, those that the gate took away; rightly: of these, those that were wrong. Subclass "
    "used: pixels whose subclass label is above the threshold."
)


def quality_by_quarter(*runs: Run) -> list[dict[str, list[int]] | None] | None:
    """Counts (``COUNTED_PIXELS``) of every quarter of a run, or of the same run on several folds, which are summed;
    None for a quarter without, and for a run without."""
    quarters: list[dict[str, list[int]] | None] = [None] * len(QUARTERS)
    for run in runs:
        config = as_stored(run.config)
        schedule = Schedule.from_config(config)
        start = config.model.epoch_start_unsup * schedule.iterations_per_epoch
        for entry in read_history(run.config.run_dir / "history.jsonl"):
            if "pseudo_label_quality" in entry:
                # A round belongs to the quarter in which it ends.
                at = (entry["iteration"] - 1 - start) * len(QUARTERS) // (schedule.iterations - start)
                quarters[at] = _added(quarters[at], entry["pseudo_label_quality"])
    return quarters if any(quarters) else None


def _added(counts: dict[str, list[int]] | None, more: dict[str, list[int]]) -> dict[str, list[int]]:
    if counts is None:
        return more
    return {name: [a + b for a, b in zip(counts[name], more[name], strict=True)] for name in counts}


def quality_tables(contents: dict[str, Any]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Of every variant with pseudo labels: a header, whose first cell is the variant's name, and rows of text."""
    seeds = (seed for variant in contents["variants"].values() for seed in variant["seeds"].values())
    names = list(next(seeds, {"iou": {}})["iou"])
    parts = {group: [names.index(name) for name in members] for group, members in contents.get("groups", {}).items()}
    parts |= {name: [index] for index, name in enumerate(names)}
    for variant, found in contents["variants"].items():
        judged = [seed["pseudo_labels"] for seed in found["seeds"].values() if seed.get("pseudo_labels")]
        if not judged:
            continue
        rows = [
            _row(title, [Quality(seed[quarter]).shares() for seed in judged if seed[quarter]])
            for quarter, title in enumerate(QUARTERS)
        ]
        last = [Quality(next(counts for counts in reversed(seed) if counts)) for seed in judged]
        rows += [_row(title, [quality.shares(indices) for quality in last]) for title, indices in parts.items()]
        yield [variant, *COLUMNS.values()], rows


def _row(title: str, shares: list[dict[str, float | None]]) -> list[str]:
    return [title, *(_mean([of_seed[name] for of_seed in shares], 2 if name == "vetoed" else 1) for name in COLUMNS)]


def _mean(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * sum(known) / len(known):.{digits}f}" if known else "–"
