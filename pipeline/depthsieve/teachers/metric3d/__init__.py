"""Metric3D v2: depth in metres with a confidence, for a camera whose focal length is known."""
