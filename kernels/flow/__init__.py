"""Dense optical flow between frames: the registry of back ends, and two of them, opencv_cuda and nvof."""
