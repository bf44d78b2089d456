"""The data sets: which files, classes, colours and splits each has."""
