"""A configuration: the keys of its top level; ``utils/config_sections.py`` has those of its sections."""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from utils.config_sections import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    PredictConfig,
    Section,
    StreamConfig,
    SupervisedConfig,
    Text,
    TrainerConfig,
    ValidationConfig,
)

BASELINE, USRN, FIXMATCH, UNIMATCH = "Baseline", "USRN", "FixMatch", "UniMatch"
_OF_UNIMATCHS_AUTHORS = {"teacher": "ema", "cutmix": 0.5, "strong_view": "unimatch", "pos_thresh_value": 0.95}
_MODEL_DEFAULTS: dict[Any, dict[str, Any]] = {FIXMATCH: _OF_UNIMATCHS_AUTHORS, UNIMATCH: _OF_UNIMATCHS_AUTHORS}
"""Of keys of ``model`` that a method has other defaults for."""


@dataclass(frozen=True)
class Origin:
    """Where a configuration is from; no part of what it says."""

    file: Path | None = field(default=None, compare=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)


class Config(Section):
    obsolete = frozenset({"ramp_up", "use_weak_lables", "unsupervised_w"})

    name: Literal["Baseline", "USRN", "FixMatch", "UniMatch"] = Field(description="the training method")
    experim_name: Text = Field(min_length=1, description="name of the run's folder")
    dataset: Literal["voc", "cityscapes", "custom", "demo"]
    data_dir: Text = Field(description="root of the data set")
    datalist: int = Field(0, ge=0, lt=2**32, description="which split lists; the seed of those that are made")
    fold: str | None = Field(
        None,
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        description="i/n: the i-th of the n folds of dataset.json is for validation, and all other images with masks "
        "are the pool of labelled ones; null: its lists as they are",
    )
    n_labeled_examples: int = Field(ge=1, le=10**9, description="labelled images")
    num_images_all: int = Field(ge=1, le=10**9, description="images of the training pool, by which epochs are counted")
    n_gpu: int = Field(1, ge=1, le=1024, description="devices; part of the schedule")
    ignore_index: int = Field(255, ge=0, le=255, description="mask value of pixels without a class")
    random_seed: int = Field(42, ge=0, lt=2**32)
    pretrained: bool | Text = Field(
        True,
        description="what the trunk starts from: true, the ImageNet weights in pretrained/; false, random weights; or "
        "a file of weights of the same network, whoever trained it (pretrained/README.md). baseline: all starts from "
        "the best model of the run's baseline, both branches from its trunk, ASPP and decoder",
    )
    diff_lrs: bool = Field(True, description="a smaller learning rate for the trunk: optimizer.backbone_lr_factor")
    lr_scheduler: Literal["Poly"] = "Poly"
    classes: list[Text] | None = Field(None, description="class names of a custom data set; null reads its classes.txt")

    label_subcls: Text | None = Field(
        None, description="folder of stage 3's subclass maps; null is the one of this run's own baseline"
    )
    clustering_algorithm: Literal["balanced_kmeans", "normal_kmeans"] = Field(
        "balanced_kmeans", description="stage 3: the method, or the paper's ablation"
    )
    subclass_counts: Literal["auto", "paper"] | float | list[int] | None = Field(
        None,
        description="K_c: auto (by pixels), paper (published splits), a factor on auto, or a list; null is paper for a "
        "published split and auto for any other",
    )
    subclass_quantile: float = Field(
        0.5, ge=0, le=1, description="N_ref is this quantile of the labelled pixels per class that occurs"
    )

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    train_supervised: SupervisedConfig = SupervisedConfig()
    train_unsupervised: StreamConfig = StreamConfig()
    val_loader: ValidationConfig = ValidationConfig()
    trainer: TrainerConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    predict: PredictConfig = PredictConfig()

    _origin: Origin = PrivateAttr(Origin())

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, values: Any) -> Any:
        name, model = (values.get(key, {}) for key in ("name", "model")) if isinstance(values, dict) else ("", {})
        if not isinstance(name, str) or not isinstance(model, dict):
            return values
        own = _MODEL_DEFAULTS.get(name)
        return values if own is None else {**values, "model": {**own, **model}}

    @model_validator(mode="after")
    def _baseline_starts_from_no_baseline(self) -> "Config":
        if self.pretrained == "baseline" and not self.uses_unlabelled:
            raise ValueError('"pretrained": "baseline" is for stage 4; the baseline itself cannot start from it')
        return self

    @model_validator(mode="after")
    def _parts_have_two_images(self) -> "Config":
        parts = self.trainer.accumulate
        streams = {"train_supervised": self.train_supervised, "train_unsupervised": self.train_unsupervised}
        for name in ("train_supervised", "train_unsupervised")[: 1 + self.uses_unlabelled]:
            images = streams[name].batch_size
            if parts > 1 and (images % parts or images < 2 * parts):
                raise ValueError(
                    f"trainer.accumulate {parts} must divide {name}.batch_size {images} in parts of two images or more"
                )
        return self

    @field_validator("experim_name")
    @classmethod
    def _one_folder_name(cls, value: str) -> str:
        if value in {".", ".."} or set(value) & set("/\\") or len(os.fsencode(value)) > 200:
            raise ValueError("must be one plain folder name of at most 200 bytes")
        return value

    @field_validator("subclass_counts")
    @classmethod
    def _positive_counts(cls, value: Any) -> Any:
        counts = value if isinstance(value, list) else [value]
        if any(isinstance(count, int | float) and not 0 < count <= 1e6 for count in counts):
            raise ValueError("counts and factors must be above 0 and at most a million")
        return value

    @property
    def file(self) -> Path | None:
        """The file that the configuration is from; None for one that is made by code."""
        return self._origin.file

    @property
    def arguments(self) -> str:
        """The command line's arguments that give this configuration again, for the commands that messages advise."""
        overrides = "".join(f" --set {shlex.quote(override)}" for override in self._origin.overrides)
        return f"--config {shlex.quote(str(self.file or f'configs/{self.experim_name}.json'))}{overrides}"

    @property
    def has_subclasses(self) -> bool:
        """Whether the method trains on stage 3's subclasses."""
        return self.name == USRN

    @property
    def uses_unlabelled(self) -> bool:
        """Whether the method trains on unlabelled images."""
        return self.name != BASELINE

    @property
    def own_name(self) -> str:
        """``experim_name`` without the method."""
        return self.experim_name.removesuffix(f"_{self.name.lower()}")

    @property
    def marks_padding(self) -> bool:
        """Whether pseudo labels of padding are left out; USRN's are not, as published, but where it takes CutMix."""
        return self.uses_unlabelled and (not self.has_subclasses or self.model.cutmix > 0)

    @property
    def run_dir(self) -> Path:
        """Where the run writes: ``<save_dir>/<experim_name>``."""
        return Path(self.trainer.save_dir) / self.experim_name

    @property
    def baseline_dir(self) -> Path:
        """The baseline's run folder, which holds features and subclass maps."""
        if self.name == BASELINE:
            return self.run_dir
        return self.subclass_dir.parent

    @property
    def subclass_dir(self) -> Path:
        """Folder of the subclass maps that stage 3 writes and stage 4 reads."""
        if self.label_subcls is not None and self.uses_unlabelled:
            return Path(self.label_subcls)
        baseline = self.own_name.removesuffix("_baseline") + "_baseline"
        if self.name == BASELINE:
            baseline = self.experim_name
        return Path(self.trainer.save_dir) / baseline / f"label_subcls_{self.clustering_algorithm}"


# Keys and sections that change how a run is written, how fast it goes or what is done with it, not what comes out.
_PATHS = {"save_dir", "log_dir", "data_dir", "label_subcls"}
_WITHOUT_EFFECT = _PATHS | {
    "num_workers", "save_period", "save_minutes", "max_bad_steps", "log_per_iter", "tensorboardX", "predict",
    "on_bad_sample", "cache_gb", "cuda_graph",
}  # fmt: skip


def differing_keys(old: dict[str, Any], new: Config) -> list[str]:
    """The keys in which an earlier configuration (its ``model_dump``) differs so that results may: key: old → new.

    A key that did not exist then has its default, which does what was done before there was the key.
    """
    after, chosen = _flatten(new.model_dump()), _flatten(new.model_dump(exclude_defaults=True))
    before = {key: value for key, value in after.items() if key not in chosen} | _flatten(old)
    return [
        f"{key}: {before.get(key)} → {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and _WITHOUT_EFFECT.isdisjoint(key.split("."))
    ]


def flat_settings(config: Config, *, changed_only: bool = False) -> dict[str, Any]:
    """Values by key (``trainer.epochs``), without the paths; with ``changed_only``, those that are no defaults."""
    values = _flatten(config.model_dump(exclude_defaults=changed_only))
    return {key: value for key, value in values.items() if key.rpartition(".")[2] not in _PATHS}


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
