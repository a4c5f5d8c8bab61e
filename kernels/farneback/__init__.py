"""Our own code for Farneback's method: C++ for one core (cpu), CUDA kernels (cuda)."""
