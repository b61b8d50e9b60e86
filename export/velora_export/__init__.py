"""From a trained model to a bundle that the runtime can trust: merge, ONNX, parity."""
