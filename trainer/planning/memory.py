"""The memory that a training needs, on this machine's processor and on GPUs that it may not have."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.loop.assembly import moments
from trainer.loop.trainer import Trainer
from utils.config import Config
from utils.config_sections import StreamConfig

SMALL_BATCH, SMALL_CROP = 2, 64  # of the step whose activations are counted
GPUS = (8, 12, 16, 24, 80)  # GB
CUDA_ITSELF = 1.5e9  # bytes: its context, and what cuDNN works in
HALF = 0.65  # of the activations in 16 bit: 0.59 to 0.66 by the processor's autocast (ResNet-14, -50 and -101, USRN)
PEAK = 1.27  # a peak was up to so much more than what is counted, which is kept from the forward to the backward pass
PARTS = (1, 2, 4, 8)  # of a batch, each of two images or more (trainer.accumulate)
_SIXTEEN_BIT = "in 16 bit"
_PRECISIONS = {  # what is said of a GPU into which the run fits, and the part of the activations that it then has
    "auto": (("fits", 1.0), (f"fits {_SIXTEEN_BIT}", HALF)),
    "fp32": (("fits", 1.0), ("fits with trainer.precision bf16", HALF)),
    "bf16": (("fits", HALF),),
    "fp16": (("fits", HALF),),
}


@dataclass(frozen=True)
class Memory:
    """Bytes that a training needs.

    Attributes
    ----------
    fixed
        Weights, gradients, what the optimiser keeps of each, and the teacher.
    activations
        What a step keeps for its backward pass, in 32 bit.
    measured
        The step by which they were estimated, in words.
    """

    fixed: float
    activations: float
    measured: str

    @property
    def total(self) -> float:
        return self.fixed + self.activations

    def describe(self, config: Config) -> str:
        kept = "moments" if moments(config) > 1 else "momentum"
        teacher = " and the teacher" if config.model.teacher == "ema" else ""
        counted = " in 32 bit" if config.trainer.precision in ("bf16", "fp16") else ""
        cache = len(_streams(config)) * config.data.cache_gb * 1e9
        return (
            f"about {size(self.total)}, estimated: {size(self.fixed)} for weights, gradients and {kept}{teacher}, "
            f"{size(self.activations)} kept{counted} for the backward pass ({self.measured}); the program itself takes "
            f"about 0.8 GB more, and decoded images up to {size(cache)} (data.cache_gb)"
        )

    def on_gpus(self, config: Config) -> str:
        """What has to be set for the run to fit into one GPU of each usual size, estimated without one."""
        settings = [self._settings(1e9 * gigabytes, config) for gigabytes in GPUS]
        found: list[str] = []
        for number, (gigabytes, setting) in enumerate(zip(GPUS, settings, strict=True)):
            if setting not in settings[:number]:
                last = max(other for other, same in zip(GPUS, settings, strict=True) if same == setting)
                found.append(f"{gigabytes} GB{f' to {last} GB' if last > gigabytes else ''}: {setting}")
        which = "; 16 bit: bf16, which auto takes where the GPU has it, else trainer.precision fp16"
        explained = which * any(_SIXTEEN_BIT in setting for setting in settings)
        return f"estimated without one: {'; '.join(found)}{explained}"

    def _settings(self, there: float, config: Config) -> str:
        whole = self.activations * config.trainer.accumulate
        for parts in PARTS:
            if parts > 1 and any(
                stream.batch_size % parts or stream.batch_size < 2 * parts for stream in _streams(config)
            ):
                break
            for fits, share in _PRECISIONS[config.trainer.precision]:
                if CUDA_ITSELF + PEAK * (self.fixed + share * whole / parts) <= there:
                    return fits + (f", trainer.accumulate {parts}" if parts > 1 else "")
        return "too small for these crops and batches"


def estimate_memory(make_trainer: Callable[..., Trainer], config: Config, n_parameters: int) -> Memory:
    """What a whole step needs, by the activations that a small one keeps, on the processor.

    Parameters
    ----------
    make_trainer
        Of ``unsupervised``, ``batch`` and ``crop``: a trainer with or without the unsupervised losses, made smaller.
    """
    streams = _streams(config)
    batch = min(SMALL_BATCH, *(stream.batch_size for stream in streams))
    crop = min(SMALL_CROP, *(stream.crop_size for stream in streams))
    trainer = make_trainer(unsupervised=True, batch=batch, crop=crop)
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.step.parameters()}
    kept: dict[int, int] = {}

    def keep(values: torch.Tensor) -> torch.Tensor:
        storage = values.untyped_storage()
        if storage.data_ptr() not in weights:  # those do not grow with the batch
            kept[storage.data_ptr()] = storage.nbytes()
        return values

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
        trainer.step(**next(iter(trainer.batches)))
    pixels = sum(stream.batch_size * stream.crop_size**2 for stream in streams) / config.trainer.accumulate
    activations = sum(kept.values()) * pixels / (len(streams) * batch * crop**2)
    copies = 2 + moments(config) + (config.model.teacher == "ema")
    return Memory(copies * 4 * n_parameters, activations, f"measured with {batch} crops of {crop} pixels, scaled")


def available_memory() -> float | None:
    """Free memory of the machine in bytes, where it can be known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return float(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def size(n_bytes: float) -> str:
    """``1.5 GB`` or ``20 MB``."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _streams(config: Config) -> list[StreamConfig]:
    return [config.train_supervised, *([config.train_unsupervised] if config.uses_unlabelled else [])]
