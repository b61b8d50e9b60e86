"""A bundle's graphs in ONNX Runtime, and clips to run them on."""
