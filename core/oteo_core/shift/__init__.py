"""Tests of shift on image statistics: whether a window of a stream still comes from the domain that a model was trained in."""
