"""What is true of a dataset's images, in the forms of `oteo_core.packages.answers`: the same for training, judging and translating."""
