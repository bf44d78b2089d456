"""The networks: DeepLabv3+ with one branch (Baseline) or two (USRN).

``models.imagenet`` has the ImageNet weights; it is imported where they are asked for, since torchvision takes seconds.
``load_model`` is the door for programs: a checkpoint, ready to predict. Reading images and configurations is not this
package's business, so it lives in ``trainer.predictor`` and is imported when it is asked for.
"""

from models.segmentor import USRN, Baseline, build_network

__all__ = ["USRN", "Baseline", "build_network", "load_model"]


def __getattr__(name: str):
    if name == "load_model":
        from trainer.predictor import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
