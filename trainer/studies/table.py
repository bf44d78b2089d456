"""What a study found: one dictionary (``study.json``), from which the console, Markdown and HTML are written."""

import hashlib
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluation.image_scores import IMAGE_COUNTS, read_image_counts
from trainer.evaluation.run_json import read_results
from trainer.evaluation.statistics import FEWEST, groups_of, iou_of, mean_iou_of, paired_difference
from trainer.record import Record
from trainer.studies.description import Part, Run, Study
from trainer.studies.label_quality import NOTE, quality_by_quarter, quality_tables
from trainer.studies.runner import seconds_of
from utils.config import Config, flat_settings

SCORES = ("mean", "rare", "medium", "frequent")


def collect(path: Path, study: Study, runs: dict[Part, dict[str, Run]]) -> dict[str, Any]:
    """The results of the runs that are complete; of a seed on folds, those of the images of all folds together.

    Parameters
    ----------
    runs
        By part of the study and variant.
    """
    contents: dict[str, Any] = {"study": path.stem, "question": study.question, "seeds": study.seeds}
    contents |= {"folds": study.folds} if study.folds else {}
    contents["variants"] = {}
    counts: dict[str, dict[int, np.ndarray]] = {}
    for name in study.variants:
        contents["variants"][name] = {"settings": _settings(runs[study.parts[0]][name].config), "seeds": {}}
        counts[name] = {}
        for seed in study.seeds:
            of_seed = [runs[part][name] for part in study.parts if part[0] == seed]
            if all(run.is_complete for run in of_seed):
                pixels = [read_image_counts(run.config.run_dir / IMAGE_COUNTS) for run in of_seed]
                counts[name][seed] = np.concatenate(pixels)
                contents["variants"][name]["seeds"][str(seed)] = _of_seed(of_seed, counts[name][seed])
    found = [seed for of_variant in counts.values() for seed in of_variant.values()]
    if not found:
        return contents
    groups = {group: indices for group, indices in groups_of(found[0]).items() if indices}  # of two classes, two
    classes = list(next(iter(_each(contents)))["iou"])
    contents["images"] = len(found[0])
    contents["groups"] = {group: [classes[index] for index in indices] for group, indices in groups.items()}
    for name, of_variant in counts.items():
        for seed, of_seed in of_variant.items():
            values = {group: float(mean_iou_of(of_seed.sum(0), indices)) for group, indices in groups.items()}
            contents["variants"][name]["seeds"][str(seed)]["groups"] = values
    contents["differences"] = differences_of(counts, groups)
    return contents


def _of_seed(runs: list[Run], counts: np.ndarray) -> dict[str, Any]:
    """A seed's scores and how they came to be, from its run on each fold and the pixels of all their images."""
    made = [Record(run.config.run_dir, "train").made for run in runs]
    classes, iou = read_results(runs[0].config.run_dir / "results.json")["iou"], iou_of(counts.sum(0))
    found = {
        "mean_iou": float(mean_iou_of(counts.sum(0))),
        "iou": {name: None if np.isnan(value) else float(value) for name, value in zip(classes, iou, strict=True)},
        "minutes": _minutes([seconds_of(run, "train") for run in runs]),
        "peak_memory_gb": max((one["peak_memory_gb"] for one in made if one.get("peak_memory_gb")), default=None),
    }
    for key in ("commit", "device", "torch", "python"):
        found[key] = ", ".join(sorted({str(one[key]) for one in made if one.get(key)})) or None
    if quality := quality_by_quarter(*runs):
        found["pseudo_labels"] = quality
    return found


def text_table(contents: dict[str, Any]) -> str:
    """The table in Markdown, which the console shows as well."""
    variants = {name: list(variant["seeds"].values()) for name, variant in contents["variants"].items()}
    header = ["IoU in %, mean ± standard deviation", *variants]
    rows = []
    for title, of_seed in _rows(contents):
        rows.append([title, *(mean_and_spread([of_seed(seed) for seed in seeds]) for seeds in variants.values())])
    for what, title in zip(SCORES, ("mean", "rare classes", "medium classes", "frequent classes"), strict=True):
        cells = [difference_text(contents.get("differences", {}).get(name, {}).get(what)) for name in variants]
        if any(cells):
            rows.append([f"difference from {next(iter(variants))}, {title}", *cells])
    rows.append(["seeds", *(str(len(seeds)) for seeds in variants.values())])
    if "folds" in contents:
        rows.append(["folds, their images pooled", *(str(contents["folds"]) for _ in variants)])
    for key, title, digits in (("minutes", "minutes of training", 1), ("peak_memory_gb", "peak memory, GB", 2)):
        cells = [[seed[key] for seed in seeds if seed.get(key) is not None] for seeds in variants.values()]
        rows.append([title, *(f"{statistics.mean(values):.{digits}f}" if values else "–" for values in cells)])
    return _aligned(header, rows)


def quality_text(contents: dict[str, Any]) -> str:
    """The tables of pseudo labels in Markdown, a variant each; "" where none were judged."""
    tables = [_aligned(header, rows) for header, rows in quality_tables(contents)]
    return "\n\n".join([NOTE, *tables]) if tables else ""


def _aligned(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def mean_and_spread(values: list[float | None]) -> str:
    """``66.7 ± 2.3``, in percent; without the spread where there is one value."""
    known = [value for value in values if value is not None and value == value]
    if not known:
        return "–"
    spread = f" ± {100 * statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{100 * statistics.mean(known):.1f}{spread}"


def difference_text(difference: dict[str, Any] | None) -> str:
    """``+4.2 [1.0, 7.1], 4 of 4 above``, in points; "" where there is none.

    Where too few images have the classes, their number stands in place of the interval.
    """
    if difference is None:
        return ""
    mean, low, high = (f"{100 * difference[key]:+.1f}" for key in ("mean", "low", "high"))
    sure = f"(only {difference['images']} images)" if _few_images(difference) else f"[{low}, {high}]"
    return f"{mean} {sure}, {difference['above']} of {difference['seeds']} above"


def interval_notes(contents: dict[str, Any]) -> list[str]:
    """What the intervals cannot tell, with so few images and seeds, in a sentence each."""
    differences = [each for found in contents.get("differences", {}).values() for each in found.values()]
    notes = []
    if any(map(_few_images, differences)):
        notes.append(
            f"Where fewer than {FEWEST} images have the classes of a score, no interval is given: so few cannot tell a "
            "difference from chance."
        )
    n_seeds = min((each["seeds"] for each in differences), default=FEWEST)
    if n_seeds == 1:
        notes.append("The intervals are of one seed, over images alone: they do not say what another seed would give.")
    elif n_seeds < FEWEST:
        notes.append(
            f"{n_seeds} seeds are fewer than {FEWEST}, so that the intervals say little of other seeds: to resample "
            f"seeds goes no further than the lowest and the highest of them, and chance puts all {n_seeds} on one side "
            f"of the truth in 1 of {2 ** (n_seeds - 1)} cases."
        )
    return notes


def _few_images(difference: dict[str, Any]) -> bool:
    # Files of earlier studies do not count the images: theirs had more.
    return difference.get("images", FEWEST) < FEWEST


def configuration_hash(settings: dict[str, Any]) -> str:
    """Twelve digits that are the same for the same settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _rows(contents: dict[str, Any]) -> list[tuple[str, Any]]:
    """Title and value of every row of scores: the classes, the groups, the mean."""
    first = next(iter(_each(contents)), None)
    if first is None:
        return []
    rows = [(name, lambda seed, name=name: seed["iou"][name]) for name in first["iou"]]
    rows += [
        (f"**{group}** ({', '.join(names)})", lambda seed, group=group: seed["groups"][group])
        for group, names in contents["groups"].items()
    ]
    return [*rows, ("**mean**", lambda seed: seed["mean_iou"])]


def _each(contents: dict[str, Any]):
    return (seed for variant in contents["variants"].values() for seed in variant["seeds"].values())


def differences_of(counts: dict[str, dict[int, np.ndarray]], groups: dict[str, list[int]]) -> dict[str, Any]:
    """Of every variant from the first, over the seeds that both have."""
    first, *others = counts
    found = {}
    for name in others:
        seeds = sorted(counts[first].keys() & counts[name].keys())
        if seeds:
            pair = [counts[first][seed] for seed in seeds], [counts[name][seed] for seed in seeds]
            found[name] = {"mean": asdict(paired_difference(*pair))} | {
                group: asdict(paired_difference(*pair, indices)) for group, indices in groups.items()
            }
    return found


def _settings(config: Config) -> dict[str, Any]:
    """What results depend on, but for the seed."""
    left_out = {"random_seed", "experim_name", "fold"}
    return {key: value for key, value in flat_settings(config, changed_only=True).items() if key not in left_out}


def _minutes(seconds: list[float | None]) -> float | None:
    """Of several trainings together; None where one of them is not known."""
    known = [value for value in seconds if value]
    return round(sum(known) / 60, 2) if len(known) == len(seconds) else None
