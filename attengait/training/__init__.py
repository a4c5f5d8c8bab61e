"""Training: settings and presets, augmentation, checkpoints and the loop over any iterable of batches."""
