"""How good a classifier is, how sure one may be of it, and where to put its thresholds."""
