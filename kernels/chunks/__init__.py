"""Chunks of compressed frames, unpacked by compiled code."""
