"""Fuse stores: labels of different teachers over the same images become one store of merged labels."""
