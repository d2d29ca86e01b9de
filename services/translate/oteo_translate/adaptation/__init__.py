"""Ways to bring the model to the shifted images, instead of the images to the model: one module each, behind a registry."""
