"""Two domains in, a shift verdict and a translator out."""
