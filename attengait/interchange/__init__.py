"""Stores from other programs' files and the other way: OpenGait's pickles, the published AttenGait's HDF5 files."""
