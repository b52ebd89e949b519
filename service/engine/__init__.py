"""What computes, and the queue before it: arms, batches, engine threads and processes, the swap of bundles."""
