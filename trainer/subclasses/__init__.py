"""Stages 2 and 3: pixel features of the labelled images, clustered into subclasses."""
