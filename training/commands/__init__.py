"""One module a command of `rdrec`; heavy imports stay inside the functions so that `--help` is quick."""
