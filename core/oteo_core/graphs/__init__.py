"""Networks written down, exported as ONNX graphs, run, compared and proved on Triton; for models and translators alike."""
