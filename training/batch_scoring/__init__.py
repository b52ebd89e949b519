"""Offline recommendations: who (`users`), what (`scoring`), kept how (`parts`), on several machines (`ray_workers`)."""
