"""Searching for the best model that a budget of wall-clock time allows."""
