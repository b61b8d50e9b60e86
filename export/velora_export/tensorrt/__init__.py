"""Building of TensorRT engines, and their parity with the graphs."""
