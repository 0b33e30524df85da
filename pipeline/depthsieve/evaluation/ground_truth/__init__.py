"""Ground truth in files: which map belongs to which image, and its depth in metres. Loads nothing by itself."""
