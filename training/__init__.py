"""Offline: raw reviews to a servable bundle. The command `rdrec`."""
