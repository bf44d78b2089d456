"""``--predict``: one image, a folder or a list → masks, overlays and confidence maps as PNGs."""

import json
import os
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from dataloaders.sets.voc import IMAGE_SUFFIXES
from trainer.prediction.predictor import Predictor, as_rgb
from utils.distributed import failing_together, gather, is_main, rank, world_size
from utils.errors import NotFiniteError, UsageError
from utils.files import sweep, write_atomically, write_whole
from utils.inputs import read_plain
from utils.lock import LOCK, sole_use
from utils.logger import progress
from utils.palette import mask_image

MARK = "predictions.json"
OVERLAY = 0.5  # the part of an overlay that is the classes' colours


def predict_files(predictor: Predictor, source: str, output: Path, checkpoint: Path) -> int:
    """Predict images and write ``masks/``, ``overlays/`` and, where asked for, ``confidence/`` below ``output``.

    Each process takes its share of the images; the number of all is returned. One image is in memory at a time.

    Parameters
    ----------
    source
        An image, a folder with images at any depth, or a text file with the path of an image a line.
    output
        A folder that is new, empty or from an earlier prediction.
    checkpoint
        Where the network is from, for the record in ``predictions.json``.

    Raises
    ------
    UsageError
        There is nothing to predict, or the output folder is somebody else's. After all others are done: images that
        could not be predicted.
    """
    images = find_images(source, output)
    with ExitStack() as until_the_end:
        with failing_together():
            if is_main():
                _check_output(output)
                until_the_end.enter_context(sole_use(output))
                sweep(output)
                _write_mark(output / MARK, predictor, checkpoint)
        _predict_all(predictor, images, output)
    return len(images)


def _check_output(output: Path) -> None:
    ours = {MARK, LOCK}
    if output.exists() and (
        not output.is_dir() or not ours & {path.name for path in output.iterdir()} and any(output.iterdir())
    ):
        raise UsageError(f"--output {output}: holds something else than predictions. Name a new or an empty folder.")


def _predict_all(predictor: Predictor, images: list[Path], output: Path) -> None:
    names, failures = output_names(images), []
    for image, name in progress(list(zip(images, names, strict=True))[rank() :: world_size()], desc="prediction"):
        try:
            pictures = _predict_image(predictor, image)
        except NotFiniteError as error:
            failures.append(f"{image}: {error}")
        except UsageError as error:
            failures.append(str(error))
        except torch.OutOfMemoryError:
            failures.append(f"{image}: is too large for the GPU's memory; set predict.window to 1024, or to less.")
        else:
            for folder, picture in pictures.items():
                path = output / folder / f"{name}.png"
                # Level 6 takes several times longer for a tenth less.
                write_atomically(path, partial(picture.save, format="PNG", compress_level=1), flush=False)
    failures = [failure for of_rank in gather(failures) for failure in of_rank]
    if failures:
        listed = "\n  ".join(failures)
        raise UsageError(f"{len(failures)} of {len(images)} images are left out, the others are done:\n  {listed}")


def find_images(source: str, output: Path) -> list[Path]:
    """The images that ``--predict`` names, each once; those below ``output`` are left out.

    Raises
    ------
    UsageError
        There is no such file, or no image in it.
    """
    path = Path(source)
    if path.is_dir():
        ours = output.resolve()
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        images = [file for file in files if ours not in file.resolve().parents]
    elif path.suffix.lower() == ".txt" and path.is_file():
        lines = read_plain(path).decode("utf-8-sig", "surrogateescape").split("\n")  # as file names are
        images = [Path(line.strip()) for line in lines if line.strip()]
    else:
        images = [path]
    if not images:
        raise UsageError(f"--predict {source}: there is no image in it ({', '.join(IMAGE_SUFFIXES)}).")
    if not path.exists():
        raise UsageError(f"--predict {source}: there is no such image, folder or list.")
    return list(dict.fromkeys(images))


def output_names(images: list[Path]) -> list[str]:
    """Where each image's outputs go, without suffix: its path below the folder that all have in common.

    Images that differ in their suffix alone (``a.jpg`` and ``a.png``) keep it.
    """
    paths = [os.path.abspath(image) for image in images]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    full = [os.path.relpath(path, common) for path in paths]
    stems = [os.path.splitext(name)[0] for name in full]
    # Not case-sensitive, since some file systems are not.
    taken = Counter(name.casefold() for name in (*stems, *full))
    return [stem if taken[stem.casefold()] == 1 else name for stem, name in zip(stems, full, strict=True)]


def _predict_image(predictor: Predictor, path: Path) -> dict[str, Image.Image]:
    """What is written of an image, by the folder that it goes to."""
    image, pictures = as_rgb(path, predictor.value_range), {}
    if predictor.settings.confidence:
        labels, confidence = predictor.predict_with_confidence(image)
        pictures["confidence"] = Image.fromarray(np.round(255 * confidence).astype(np.uint8))
    else:
        labels = predictor.predict(image)
    overlay = cv2.addWeighted(image, 1 - OVERLAY, predictor.palette[labels], OVERLAY, 0)
    return pictures | {"masks": mask_image(labels, predictor.palette), "overlays": Image.fromarray(overlay)}


def _write_mark(path: Path, predictor: Predictor, checkpoint: Path) -> None:
    """What the values of the masks mean, and how they came about."""
    contents = {
        "checkpoint": str(checkpoint),
        "classes": list(predictor.classes),
        "colours": predictor.palette[: len(predictor.classes)].tolist(),
        "settings": predictor.settings.model_dump(),
    }
    text = json.dumps(contents, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, text)
