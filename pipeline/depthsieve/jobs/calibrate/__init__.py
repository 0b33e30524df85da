"""Trains the error network for a teacher: scenes and photos with depth, their labels, training, and how good it is."""
