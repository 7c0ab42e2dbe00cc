"""From a crystal and a grain-boundary plane to a transport record."""

__version__ = "0.1.0"
