"""Stage 2: the pixel features of the labelled images (docs/method.md section 7)."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dataloaders.photometry import to_unit
from dataloaders.sets.description import SegmentationData
from models import Segmentor
from trainer.prediction.whole_image import prepare, whole_image_loader
from utils.commands import command
from utils.config import Config
from utils.distributed import barrier
from utils.errors import NotFiniteError
from utils.files import write_atomically
from utils.logger import progress


@torch.inference_mode()
def save_features(config: Config, data: SegmentationData, network: Segmentor, device: torch.device) -> int:
    """Write every labelled image's feature, float16 (out_dim, h, w) at stride 8, to ``features/<image id>.npy``.

    The whole reflect-padded image goes through the network in evaluation mode, in float32 and with its batch norms as
    they are, unlike an evaluation: clusters follow from small differences. Each process writes its share; the number
    of files that all of them wrote together is returned.

    Raises
    ------
    NotFiniteError
        A feature is not finite in float16.
    """
    folder = features_dir(config)
    folder.mkdir(parents=True, exist_ok=True)
    loader = whole_image_loader(config, data, data.labelled, device)
    network.eval()
    for batch in progress(loader, desc="features", unit="batch"):
        features = network.pixel_features(prepare(to_unit(batch["images"].to(device, non_blocking=True))))
        features = F.interpolate(features.float(), scale_factor=0.5, mode="bilinear", align_corners=True)
        for sample, feature in zip(batch["samples"], features.half().cpu().numpy(), strict=True):
            if not np.isfinite(feature).all():
                raise NotFiniteError(
                    f"{sample.image}: its feature is not finite; the baseline has diverged. Train stage 1 again with a "
                    "lower optimizer.args.lr."
                )
            write_atomically(folder / f"{sample.id}.npy", partial(np.save, arr=feature))
    barrier()
    return len(data.labelled)


def features_dir(config: Config) -> Path:
    return config.baseline_dir / "features"


def features_command(config: Config) -> str:
    """The command of stage 2, for messages."""
    return command("--save_feature True", config.baseline_dir, config)
