"""A user's own images and masks, made into a data set: ``python3 main.py --init_data`` (docs/own_data.md)."""
