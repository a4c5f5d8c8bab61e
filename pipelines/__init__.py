"""A store to batches, by DALI, and a store, a stream and the model put together. DALI is imported when it is needed."""
