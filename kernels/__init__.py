"""Flow and image kernels. They know arrays only: no dataset, store or training code.

flow        dense optical flow between frames: a registry of backends
colour      flow to colours on the Middlebury wheel
silhouette  where the walker is, and the crop around the middle of their body
encode      the stored picture of a flow: a registry of encodings

farneback_cpu, colour_fast          our own flow and colours for one core, C++ compiled at first use (compile)
farneback_cuda, frames_cuda         our CUDA kernels (*.cu), run by launch on a GPU or, for the tests, on the host
flow_opencv_cuda, flow_nvof         flow by OpenCV's CUDA code, and by the GPU's hardware through DALI
gpu, dali                           which GPUs there are; what DALI says when something fails
"""
