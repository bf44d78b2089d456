"""Folders of images and masks, and ``--init_data`` on them, in the working folder."""

from pathlib import Path

import main as command_line
from dataloaders import open_data
from tests.dataloaders.own.folders import SIZE, names, scene, write_images, write_mask
from utils.config_file import load_config

COLOURS = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]


def folders(n_images: int = 12, n_masks: int = 6, n_classes: int = 3, size=SIZE, mode: str = "RGB", **mask):
    """``images`` and ``masks`` in the working folder."""
    write_images(Path("images"), names(n_images), size, mode)
    for number, name in enumerate(names(n_masks)):
        write_mask(Path("masks") / name, scene(number, n_classes, size), **mask)


def init(*more, images="images", masks="masks", name="mine", device="cpu") -> int:
    arguments = ["--init_data", images, "--masks", masks, "--name", name, "--device", device, *more]
    return command_line.main([str(argument) for argument in arguments])


def refused(capsys, *more, **folders) -> str:
    assert init(*more, **folders) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def opened(kind: str = "usrn"):
    return open_data(load_config(f"configs/mine_{kind}.json"))
