"""From the outputs of served graphs to answers in pixels of the original: the same code for held-out images, evaluation and the gateway."""
