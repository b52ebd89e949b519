"""From a dataset to a checkpoint: configuration, examples, batches, losses and the training loop."""
