"""Balanced k-means: arrays in, labels out. It imports nothing of the rest, so that it can be lifted out."""

from trainer.balanced_kmeans.estimator import BalancedKMeans, fit_distributed

__all__ = ["BalancedKMeans", "fit_distributed"]
