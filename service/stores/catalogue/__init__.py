"""What is newer of the catalogue than the bundle: one Protocol (base.py), a store in memory and one in Redis."""
