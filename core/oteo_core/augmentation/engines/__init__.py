"""What applies a drawn step to pixels: one contract (`base`), an engine a module."""
