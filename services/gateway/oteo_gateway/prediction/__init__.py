"""From an image's bytes to a calibrated answer: admission, decoding, the model server's request, the answer."""
