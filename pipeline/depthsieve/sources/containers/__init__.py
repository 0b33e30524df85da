"""Files that hold many images: archives and files of arrays."""
