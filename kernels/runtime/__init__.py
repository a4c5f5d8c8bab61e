"""Compiles kernels, launches them on a GPU or on the host, and finds GPUs."""
