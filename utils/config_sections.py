"""The sections of a configuration: every key with its type, its default and its meaning.

Keys that the original has keep their spelling. Keys of the original that no longer mean anything are listed
in ``obsolete`` of their section and are accepted without a word; any other unknown key is refused.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

Monitor = Literal["max Mean_IoU"]
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A name or path: no control characters, nothing that is no Unicode. A folder may have any other."""


TRUNK = r"^timm/[\w.\-]+$"


class Section(BaseModel):
    """A group of keys: strict types, no unknown keys, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    obsolete: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_obsolete(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if key not in cls.obsolete}
        return values


class ModelConfig(Section):
    obsolete = frozenset({"supervised", "semi", "sup_loss", "backbone", "step_save", "stride"})

    layers: Literal[14, 26, 50, 101] = Field(50, description="depth of the ResNet trunk")
    trunk: Annotated[str, Field(pattern=TRUNK)] | None = Field(
        None,
        description="timm/<model> in place of the ResNet: a convolutional or hierarchical network or a plain ViT of "
        "the package timm; layers and base_width are then without effect",
    )
    base_width: int = Field(64, ge=4, le=1024, description="channels of the trunk's first stage; 64 is ResNet's own")
    out_dim: int = Field(256, ge=4, le=8192, description="width of ASPP, decoder and pixel feature")
    downsample: bool = Field(True, description="average-pool unlabelled pixel features 2x2 before the classifier")
    pos_thresh_value: float = Field(
        0.75,
        ge=0,
        le=1,
        description="confidence above which a pseudo label is used. FixMatch and UniMatch: 0.95 unless said otherwise",
    )
    entropy_gate: bool | Literal["always"] = Field(
        True,
        description="true: the subclass branch vetoes where it is surer; false: no veto; always: veto everywhere",
    )
    supervised_w: float = Field(1.0, ge=0, description="weight of the supervised losses of classes and subclasses")
    loss_weight_subcls: float = Field(1.0, ge=0, description="weight of the two subclass losses")
    loss_weight_unsup: float = Field(1.0, ge=0, description="weight of the two unsupervised losses")
    epoch_start_unsup: int = Field(0, ge=0, description="first epoch with unsupervised losses")
    teacher: Literal["student", "ema"] = Field(
        "student",
        description="who labels the unlabelled images: the network itself, or the moving average of its weights, which "
        "is then what is validated and kept as the best model. FixMatch and UniMatch: ema unless said otherwise",
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of a box in which a strong view shows another crop of the batch. FixMatch and "
        "UniMatch: 0.5 unless said otherwise",
    )
    strong_view: Literal["usrn", "unimatch"] = Field(
        "usrn",
        description="colours of the strong view: USRN's, or UniMatch's stronger ones. FixMatch and UniMatch: unimatch "
        "unless said otherwise",
    )


class OptimizerArgs(Section):
    lr: float = Field(0.01, gt=0, description="learning rate of the heads at iteration 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD; AdamW has its moments' 0.9 and 0.999")
    weight_decay: float = Field(1e-4, ge=0)


class OptimizerConfig(Section):
    type: Literal["SGD", "AdamW"] = "SGD"
    backbone_lr_factor: float = Field(
        0.1, gt=0, le=1, description="the trunk's learning rate as a part of the heads', where diff_lrs is on"
    )
    args: OptimizerArgs = OptimizerArgs()


class StreamConfig(Section):
    """A training stream (``train_supervised``, ``train_unsupervised``)."""

    obsolete = frozenset({"split", "stride", "shuffle", "val"})

    batch_size: int = Field(8, ge=2, le=2**16, description="images of this stream in a batch of all devices together")
    crop_size: int = Field(320, ge=8, le=2**13, description="side of the square crop in pixels")
    base_size: int = Field(400, ge=8, le=2**14, description="the long side is scaled around this many pixels")
    augment: bool = Field(True, description="false switches scale, flip, rotation and blur off")
    scale: bool = Field(True, description="random scale; false leaves images at their size")
    flip: bool = Field(True, description="horizontal flip with probability 0.5")
    rotate: bool = Field(False, description="rotation by an integer angle in [-10, 10] degrees")
    blur: bool = Field(False, description="Gaussian blur of sigma up to 1.5")
    jitter: bool = Field(False, description="colour jitter of the labelled stream (Cityscapes)")
    num_workers: int = Field(8, ge=0, le=512, description="data-loading processes per device")


class SupervisedConfig(StreamConfig):
    """``train_supervised``."""

    loss: Literal["ce", "ohem"] = Field(
        "ce", description="loss of the classes: cross entropy of all pixels, or of the hard ones alone (OHEM)"
    )
    ohem_threshold: float = Field(
        0.7, ge=0, le=1, description="OHEM: a pixel is hard where its class is at most as probable"
    )
    ohem_kept: int = Field(
        200_000, ge=0, le=2**40, description="OHEM: so many pixels of a batch count at least, the hardest"
    )
    class_weights: Literal["inverse"] | Annotated[list[NonNegativeFloat], Field(min_length=2)] | None = Field(
        None, description="weights of the classes in that loss: a list, or inverse to their labelled pixels; null: none"
    )


class DataConfig(Section):
    on_bad_sample: Literal["error", "skip"] = Field(
        "error",
        description="a training image or mask that cannot be used: error stops the run; skip draws another in its "
        "place and lists it in the log. In evaluation and stages 2 and 3 it is always an error",
    )
    cache_gb: float = Field(
        1.0,
        ge=0,
        le=10**4,
        description="memory for decoded images and masks, in GB (1e9 bytes) for each stream of each process: so much "
        "of a stream is decoded once and not at every draw; 0 keeps nothing",
    )

    value_range: Literal["auto"] | Annotated[list[int], Field(min_length=2, max_length=2)] = Field(
        "auto",
        description="the values of 16-bit images that become black and white; auto: what --init_data or --check_data "
        "found in the data set's files, else the whole range of the type",
    )

    @field_validator("value_range")
    @classmethod
    def _ascending(cls, value: Any) -> Any:
        if value != "auto" and not -(2**15) <= value[0] < value[1] < 2**16:
            raise ValueError("must be two 16-bit values, the darker one first")
        return value


class ValidationConfig(Section):
    obsolete = frozenset({"split", "stride", "shuffle", "val"})

    batch_size: int = Field(1, ge=1, le=2**16, description="images of one padded size that are evaluated together")
    num_workers: int = Field(1, ge=0, le=512, description="data-loading processes per device")


class TrainerConfig(Section):
    epochs: int = Field(ge=1, le=10**6, description="multiplied by floor(num_images_all / n_labeled_examples)")
    minutes: float | None = Field(
        None,
        gt=0,
        le=10**6,
        description="time for all stages of a run: epochs, model.epoch_start_unsup and val_per_epochs are scaled to it "
        "by iterations that are timed when stage 1 begins; null: the schedule as it stands",
    )
    early_stop: int = Field(
        100, ge=1, description="more validations than these without a better one end the run; multiplied like epochs"
    )
    save_dir: Text = Field("saved/", description="a run writes to <save_dir>/<experim_name>")
    save_period: int = Field(1, ge=1, description="epochs between two checkpoints")
    save_minutes: float | None = Field(
        15.0, ge=0, description="minutes between two checkpoints within an epoch; null saves by epochs alone"
    )
    max_bad_steps: int = Field(10, ge=1, description="so many steps in a row without a finite loss end the run")
    log_dir: Text = Field("saved/", description="TensorBoard writes to <log_dir>/<experim_name>/tensorboard")
    log_per_iter: int = Field(20, ge=1, description="iterations between two lines of scalars")
    monitor: Monitor = Field("max Mean_IoU", description="what makes a model the best one")
    val: bool = Field(True, description="validate during training")
    val_per_epochs: int = Field(1, ge=1, description="epochs between two validations")
    tensorboardX: bool = Field(True, description="write TensorBoard logs")
    pseudo_label_quality: bool = Field(
        False,
        description="count how many pseudo labels are right, by the masks of unlabelled images that have one; "
        "training does not see them",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of the network; losses are float32. auto: bf16 on a GPU that has it, else fp32"
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=2**15,
        description="the batch goes through the network in so many equal parts, which takes less memory; batch norm "
        "sees the parts",
    )
    compile: bool = Field(False, description="compile the training step with torch.compile; plain where that fails")
    cuda_graph: bool = Field(
        True,
        description="where one process trains on a GPU, not compiled: record forward and backward pass as a CUDA graph "
        "and replay it, the same to the last bit in less time; plain where that fails",
    )
    deterministic: bool = Field(
        False,
        description="on a GPU, only operations that give the same bits in every run, so that a run that goes on is the "
        "unbroken one to the last bit; slower. The CPU needs no setting for that",
    )


class PredictConfig(Section):
    """Prediction of any images (``--predict``, ``load_model``)."""

    window: int | None = Field(None, ge=32, description="side of the sliding window in pixels; null: the whole image")
    overlap: float = Field(0.25, ge=0, le=0.9, description="part of a window's side that it shares with the next")
    scales: list[PositiveFloat] = Field([1.0], min_length=1, description="sizes of the image whose logits are averaged")
    flip: bool = Field(False, description="average with the logits of the mirrored image")
    confidence: bool = Field(False, description="write a picture of the probability of every pixel's class, too")


class EvaluationConfig(Section):
    """Validation and ``--test``."""

    mode: Literal["whole", "slide"] = Field(
        "whole", description="whole images, as published; slide: windows, the mean of whose softmax counts"
    )
    window: int | None = Field(None, ge=32, description="side of slide's window; null: train_supervised.crop_size")
    scales: list[PositiveFloat] = Field([1.0], min_length=1, description="sizes of the image whose logits are averaged")
    flip: bool = Field(False, description="average with the logits of the mirrored image")
