"""The page and the card that come with a model: for the doctor who uses it and the statistician who doubts it."""
