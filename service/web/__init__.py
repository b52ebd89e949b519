"""HTTP and nothing else: the app, its routes, the edge before them, who may ask."""
