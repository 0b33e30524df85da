"""Cameras that a user gives: a table of intrinsics, or a COLMAP model, and which image each is of."""
