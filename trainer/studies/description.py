"""What a study is: variants of a run, seeds, and the folders in which each is trained."""

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trainer.planning.budget import as_stored
from trainer.record import Record
from utils.config import BASELINE, Config
from utils.config_file import load_config
from utils.errors import UsageError
from utils.inputs import first_problem, read_plain

STUDIES_DIR = Path("saved/studies")


Part = tuple[int, str | None]
"""A seed, and a fold as ``Config.fold`` has it."""


class Variant(BaseModel):
    """One row of the table: a configuration, what differs from it, and what differs in its baseline."""

    model_config = ConfigDict(extra="forbid", strict=True)

    config: str = Field(description="a configuration's file, relative to the study's folder")
    set: dict[str, Any] = Field({}, description="keys of the configuration, as for --set")
    baseline_set: dict[str, Any] = Field({}, description="the same for stages 1 to 3 of this variant alone")


class Study(BaseModel):
    """A file of ``configs/studies/``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(description="what the study asks, in a sentence")
    baseline: str = Field(description="the configuration of stages 1 to 3, relative to the study's folder")
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1, description="the first is what the others are compared with")
    set: dict[str, Any] = Field({}, description="keys of every configuration")
    folds: int | None = Field(
        None,
        ge=2,
        description="of the data set (Config.fold): each seed is trained on every one, and their images pooled",
    )
    runs: str | None = Field(
        None, pattern=r"^\w+$", description="the study in whose folder the runs are, where several share them"
    )

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands twice")
        return seeds

    @property
    def parts(self) -> list[Part]:
        """What each variant is trained with."""
        folds = [None] if self.folds is None else [f"{fold}/{self.folds}" for fold in range(1, self.folds + 1)]
        return list(product(self.seeds, folds))


@dataclass(frozen=True)
class Run:
    """One training with its evaluation.

    Attributes
    ----------
    name
        Of the run's folder.
    file, overrides
        The configuration, and ``--set`` options.
    config
        Both, loaded.
    baseline
        The run whose subclasses it trains on; None for a baseline.
    """

    name: str
    file: Path
    overrides: tuple[str, ...]
    config: Config = field(compare=False)
    baseline: "Run | None" = None

    @property
    def part(self) -> str:
        """Seed and fold, as jobs are named by them."""
        seed, fold = self.config.random_seed, self.config.fold
        return f"{seed}" if fold is None else f"{seed}/fold_{fold.split('/')[0]}"

    @property
    def is_complete(self) -> bool:
        """Whether it is trained and evaluated with this configuration."""
        config = as_stored(self.config)
        return (config.run_dir / "results.json").is_file() and all(
            Record(config.run_dir, stage).is_of(config) for stage in ("train", "test")
        )


def read_study(path: Path) -> Study:
    """Read a study's file.

    Raises
    ------
    UsageError
        The file is missing or no study.
    """
    try:
        return Study.model_validate_json(read_plain(path))
    except OSError as error:
        raise UsageError(f"--study {path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise UsageError(f"--study {path}: {first_problem(error)}.") from None


def runs_of_seed(
    path: Path, study: Study, seed: int, folder: Path, overrides: tuple[str, ...] = (), fold: str | None = None
) -> dict[str, Run]:
    """The run of every variant with one seed, and on one fold where the study has them.

    Variants whose stages 1 to 3 are the same share them.

    Parameters
    ----------
    folder
        Of the runs; one is in ``<folder>/seed_<seed>/<name>``, or in ``<folder>/seed_<seed>/fold_<i>/<name>``.
    overrides
        ``--set`` options of the command line.
    """
    here = folder / f"seed_{seed}"
    common: dict[str, Any] = {"random_seed": seed}
    if fold is not None:
        here /= f"fold_{fold.split('/')[0]}"
        common["fold"] = fold
    common |= {"trainer.save_dir": f"{here}/", "trainer.log_dir": f"{here}/"}
    baselines: dict[str, Run] = {}

    def load(file: Path, **settings: Any) -> tuple[tuple[str, ...], Config]:
        values = {**study.set, **settings, **common}
        options = (*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items()))
        return options, load_config(file, list(options))

    def baseline_of(name: str, file: Path, settings: dict[str, Any]) -> Run:
        """The baseline with these settings, called after the first variant that needs it."""
        options, config = load(file, **settings, experim_name=f"{name}_baseline")
        run = Run(config.experim_name, file, options, config)
        return baselines.setdefault(config.model_dump_json(exclude={"experim_name"}), run)

    runs = {}
    methods = {
        name: load(path.parent / variant.config, **variant.set)[1].name for name, variant in study.variants.items()
    }
    # Baselines come first: one that is a variant itself gives its name to the run that others build on.
    for name in sorted(study.variants, key=lambda name: methods[name] != BASELINE):
        variant, method, slug = study.variants[name], methods[name], _slug(name)
        file, settings = path.parent / variant.config, variant.set
        if method == BASELINE:
            runs[name] = baseline_of(slug.removesuffix("_baseline"), file, {**variant.baseline_set, **settings})
            continue
        # Stage 3 is of the baseline's configuration, with what the variant says of clustering.
        clustering = {key: value for key, value in settings.items() if key.startswith(("clustering", "subclass"))}
        baseline = baseline_of(slug, path.parent / study.baseline, {**variant.baseline_set, **clustering})
        name_of_run = f"{slug}_{method.lower()}"
        options, config = load(
            file, **settings, experim_name=name_of_run, label_subcls=str(baseline.config.subclass_dir)
        )
        runs[name] = Run(config.experim_name, file, options, config, baseline)
    names = [run.name for run in runs.values()]
    if len(set(names)) < len(names):
        raise UsageError(f"--study {path}: two of its variants are the same run or have names that look alike.")
    return {name: runs[name] for name in study.variants}


def _slug(name: str) -> str:
    """A variant's name as a folder's."""
    slug = "".join(letter if letter.isalnum() else "_" for letter in name.lower()).strip("_")
    return "_".join(part for part in slug.split("_") if part) or "variant"
