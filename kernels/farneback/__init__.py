"""Farneback's flow by our own code: C++ for one core (cpu), CUDA kernels (cuda)."""
