"""Where the newest interactions live: one Protocol (base.py), a store in memory and one in Redis."""
