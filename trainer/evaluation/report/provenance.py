"""The report's last section: what was run, when, on what and with which settings."""

import json
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.report.run_files import RunFiles
from utils.config import Config, flat_settings


def facts(run: RunFiles, config: Config, data: SegmentationData) -> str:
    """What was run, when and on what."""
    shown = {
        "method": run.name,
        "data": f"{config.dataset}: {config.n_labeled_examples:,} of {config.num_images_all:,} images are labelled; "
        f"{len(data.validation):,} validation images; {len(data.classes)} classes",
    }
    stages = {"train": "training"} | ({"test": "evaluation"} if run.results else {})
    for stage, title in stages.items():
        made = run.made.get(stage)
        if made is None:
            continue
        began, ended = (datetime.fromisoformat(made[key]) for key in ("began", "ended"))
        resumed = f", resumed at iteration {made['resumed_at']:,}" if made.get("resumed_at") else ""
        where = f"{made['device']}" if made["processes"] == 1 else f"{made['processes']} × {made['device']}"
        shown[title] = (
            f"{began:%Y-%m-%d %H:%M}, {_duration(ended - began)}{resumed}; {where}; "
            f"Python {made['python']}, PyTorch {made['torch']}"
        )
    if run.results:
        shown["checkpoint"] = Path(run.results["checkpoint"]).name
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(value)}</dd>' for name, value in shown.items())}</dl>"


def settings(config: Config) -> str:
    """The settings that are no defaults; all of them, folded."""

    def table(values: dict[str, Any]) -> str:
        rows = "".join(
            f"<tr><th scope=row>{escape(key)}</th><td>{escape(json.dumps(value, ensure_ascii=False))}</td></tr>"
            for key, value in values.items()
        )
        return f'<table class="settings">{rows}</table>'

    return (
        f"<h3>Settings that are not the default</h3>{table(flat_settings(config, changed_only=True))}"
        f"<details><summary>All settings</summary>{table(flat_settings(config))}</details>"
    )


def _duration(time: timedelta) -> str:
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
