"""Flow and image kernels. They know arrays only: no dataset, store or training code.

flow        dense optical flow between frames: the registry of back ends, OpenCV's CUDA code, the GPU's hardware
farneback   our own Farneback: C++ for one core, CUDA kernels
pictures    what is stored of a frame: colours, the crop around the walker, encodings
runtime     compiling at first use, launching on a GPU or on the host, which GPUs there are
"""
