"""From review files to a dataset folder."""
