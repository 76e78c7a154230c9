"""jaxinit."""
