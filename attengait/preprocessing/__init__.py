"""Sequences to the pictures of a store: recipes, what was left out, and the executors that run shards."""
