"""From cheap to dear: every way is tried on the shifted images and judged by the frozen model and by structure; doing nothing is what has to be beaten."""
