"""From the model in torch to ONNX graphs and shared weights."""
