"""One image file: its header and its pixels; and the colours that maps are shown in."""
