"""Detection: what the objects of a dataset are like, detectors, how they are taught, and how their answers are read."""
