"""Swish, pooling, patch attention and LayerNorm of maps as one compiled step, for CPUs and for NVIDIA GPUs."""
