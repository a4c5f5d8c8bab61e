"""Code that computes flow and pictures, and unpacks chunks. It knows arrays only: no dataset, store or training code.

flow        dense optical flow between frames: the registry of back ends, OpenCV's CUDA code, the GPU's hardware
farneback   our own code for Farneback's method: C++ for one core, CUDA kernels
pictures    from a flow to a flow image: colours, the crop around the walker, encodings
chunks      unpacks the chunks of compressed frames
runtime     compiles kernels at first use, launches them on a GPU or on the host, and finds GPUs
"""
