"""The page: its sections in order, each left out where the files it is made from are missing."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.report import provenance, sections
from trainer.evaluation.report.label_quality import label_quality
from trainer.evaluation.report.pictures import Scene, choose, save_entropy_maps
from trainer.evaluation.report.run_files import read_run
from trainer.evaluation.report.scores import scores
from utils.config import BASELINE, Config
from utils.files import write_whole

REPORT = "report.html"


def write_report(
    config: Config,
    data: SegmentationData,
    *,
    evaluated: bool = True,
    scenes: Sequence[Scene] = (),
    progress: str = "",
    made: dict[str, Any] | None = None,
    network: nn.Module | None = None,
    device: torch.device | None = None,
    recommended: Sequence[str] = (),
) -> Path:
    """Write the page of a run; its path.

    Parameters
    ----------
    evaluated
        False leaves out the results of ``--test``: those in the folder are an earlier network's.
    scenes
        Without ``evaluated``: what the last validation predicted.
    progress
        How far a training is that goes on.
    made
        By stage, how it was made, of those that ``stages.json`` does not name yet.
    network, device
        The network that was evaluated, for entropy maps; without it those in the folder are shown.
    recommended
        Which of the run's and its baseline's models to use, in sentences.
    """
    run = read_run(config.name, config.run_dir, data, evaluated=evaluated)
    run.made |= made or {}
    baseline = None if config.name == BASELINE else read_run("baseline", config.baseline_dir, data)
    compared = baseline if baseline is not None and run.results and baseline.results else None
    groups = choose(run.images, compared.images if compared else {})
    if network is not None and device is not None:
        shown = {id_ for group in groups for id_ in group.ids}
        save_entropy_maps(run.folder, config, data, shown, network, device)
    bodies = {
        "Which model to use": "".join(f"<p>{escape(sentence)}</p>" for sentence in recommended),
        "Last validation": "" if evaluated else sections.last_validation(run, data, scenes),
        "Classes": sections.classes(run, compared, data),
        "Scores": scores(run, compared),
        "Curves": sections.curves(run, baseline),
        "Pseudo labels": sections.pseudo_labels(run, data) + label_quality(run, data),
        "Confusion": sections.confusion(run, data),
        "Subclasses": sections.subclasses(config, data),
        "Images": sections.images(run, compared, data, groups),
        "Run": provenance.facts(run, config, data) + provenance.settings(config),
    }
    going_on = f"<p>{escape(progress)}</p>" if progress else ""
    page = html_page(config.experim_name, sections.headline(run, compared, data) + going_on, bodies)
    path = config.run_dir / REPORT
    write_whole(path, page)
    return path


def html_page(title: str, headline: str, bodies: dict[str, str]) -> str:
    """A whole page: its title, HTML below it, and a section for each heading whose HTML is not empty."""
    shown = {heading: body for heading, body in bodies.items() if body}
    anchors = {heading: heading.lower().replace(" ", "-") for heading in shown}
    links = "".join(f'<a href="#{anchors[heading]}">{heading}</a>' for heading in shown)
    main = "".join(
        f'<section id="{anchors[heading]}"><h2>{heading}</h2>{body}</section>\n' for heading, body in shown.items()
    )
    style = Path(__file__).with_name("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<header>\n"
        f"<h1>{escape(title)}</h1>\n{headline}\n<nav>{links}</nav>\n</header>\n<main>\n{main}</main>\n</body>\n</html>\n"
    )
