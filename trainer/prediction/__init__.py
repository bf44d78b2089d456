"""Prediction of any images, and networks for other programs.

``load_model`` is the door for programs: a checkpoint, ready to predict.
"""

from trainer.prediction.predictor import load_model

__all__ = ["load_model"]
