"""One image file: its header, and its pixels."""
