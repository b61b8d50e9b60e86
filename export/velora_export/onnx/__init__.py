"""ONNX graphs and shared weights from the model in torch."""
