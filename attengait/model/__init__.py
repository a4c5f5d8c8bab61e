"""The AttenGait network of the paper, its losses and its weights in files."""
