"""Dense optical flow between frames: the registry of back ends (backends), and those of OpenCV's CUDA code and DALI."""
