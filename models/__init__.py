"""The networks: DeepLabv3+ with one branch (Baseline) or two (USRN)."""

from models.imagenet import imagenet_weights, load_imagenet_weights
from models.segmentor import USRN, Baseline, build_network

__all__ = ["USRN", "Baseline", "build_network", "imagenet_weights", "load_imagenet_weights"]
