"""Scores of a network, the comparison of two, and the page that shows them."""
