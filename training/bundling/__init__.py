"""From a checkpoint to the bundle that the service opens."""
