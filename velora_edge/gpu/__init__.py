"""NVIDIA support that export and runtime share: CUDA by cuda-python, TensorRT engines and their origin."""
