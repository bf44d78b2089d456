"""Data sets made ready from their downloads: ``python3 -m dataloaders.prepare voc|cityscapes``."""
