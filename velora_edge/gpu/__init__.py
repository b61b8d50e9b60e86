"""What export and runtime share of NVIDIA's side: CUDA by cuda-python, TensorRT engines, whose they are."""
