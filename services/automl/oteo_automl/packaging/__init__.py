"""From a fitted network to files that Triton serves: the ONNX graph, its configuration, and the proof that both answer alike."""
