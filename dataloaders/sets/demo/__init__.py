"""The demo data set, drawn by code."""
