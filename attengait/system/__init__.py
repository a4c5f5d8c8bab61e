"""This machine and this process: cores, memory, files, worker processes, packages, and looking names up."""
