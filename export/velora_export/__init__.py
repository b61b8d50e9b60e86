"""Export of a trained model to a bundle: merge, ONNX, parity."""
