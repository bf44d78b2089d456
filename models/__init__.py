"""The networks: DeepLabv3+ with one branch (Baseline) or two (USRN), and how a network is executed.

``models.imagenet`` has the ImageNet weights; it is imported where they are asked for, since torchvision takes seconds.
"""

from models.segmentor import USRN, Baseline, Segmentor, build_network

__all__ = ["USRN", "Baseline", "Segmentor", "build_network"]
