"""The weighted sums of the temporal pyramid's windows as one compiled step, for CPUs and for NVIDIA GPUs."""
