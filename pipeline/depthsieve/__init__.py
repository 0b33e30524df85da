"""Offline pseudo-label generation and curation for monocular depth."""

__version__ = "0.1.0"
