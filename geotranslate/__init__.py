"""Translate remote-sensing imagery from one domain to another, as georeferenced rasters."""

__version__ = "0.1.0"
