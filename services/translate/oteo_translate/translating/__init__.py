"""Published translators at work: on images of any size, depth and number of channels, one by one or a dataset at a time."""
