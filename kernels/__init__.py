"""Flow and image kernels. They know arrays only: no dataset, store or training code.

flow        dense optical flow between frames: a registry of backends
colour      flow to colours on the Middlebury wheel
silhouette  where the walker is, and the crop around the middle of their body
encode      the stored picture of a flow: a registry of encodings
"""
