"""A dataset and a time budget in, a calibrated model package out."""
