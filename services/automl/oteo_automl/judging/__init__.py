"""Judging a published model on any dataset: its graph over the images, figures with intervals, parts of the data told apart."""
