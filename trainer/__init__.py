"""Training, evaluation, clustering and prediction: the stages of a run, a room for each kind of work."""
