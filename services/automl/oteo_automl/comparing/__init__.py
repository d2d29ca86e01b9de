"""Published models compared: which is better, on the same images where that can be had, and whether the difference is real."""
