"""What goes over the wire: schemas, problems and the context of a request. Stands on stores and settings."""
