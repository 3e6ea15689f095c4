"""The version, at the very bottom, for packaging reads it without importing anything."""

__version__ = '0.1.0'
