"""Depth Anything 3 for one image at a time: the network, what its authors do before and after it, and the teacher."""
