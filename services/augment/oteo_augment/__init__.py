"""Datasets in, checked and bigger datasets out."""
