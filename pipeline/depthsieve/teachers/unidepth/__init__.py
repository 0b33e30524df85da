"""UniDepth v2, by the package of its authors, which people install themselves: nothing of it is in this package."""
