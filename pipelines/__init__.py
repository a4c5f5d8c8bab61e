"""DALI pipelines: frames to a store, a store to batches. Nothing here is imported before it is needed."""
