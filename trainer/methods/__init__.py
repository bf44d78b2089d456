"""The training methods, one step a file. They import no other room of ``trainer``."""
