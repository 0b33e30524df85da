"""Layers: what is added to a store beside its labels, at any time."""
