"""Preprocessing on GPUs: one process for each; reading, computing and writing overlap."""
