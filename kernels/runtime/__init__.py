"""Compiling and launching kernels, on a GPU or on the host, and which GPUs there are."""
