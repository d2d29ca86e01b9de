"""From a served graph's outputs to answers in original pixels: the same code in training, evaluation and the gateway. NumPy alone."""
