"""How near two sets of images are to each other."""
