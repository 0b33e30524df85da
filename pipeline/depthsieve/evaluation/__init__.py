"""Labels of a store against ground truth in files. Loads nothing by itself."""
