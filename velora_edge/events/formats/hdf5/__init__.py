"""Readers of HDF5 files, Prophesee's with its ECF codec included."""
