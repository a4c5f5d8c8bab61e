"""What pieces.h says, for Python."""

FORMATS = ("float32", "bfloat16", "float16")
"""Of maps on a GPU, by their numbers in pieces.h."""
PIECE = 8
"""Features of one thread."""
