"""The search run by torch, operation by operation: the reference, training and evaluation."""
