"""Online: bundle to HTTP. The command `rdrec-serve`."""
