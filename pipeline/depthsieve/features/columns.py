"""The columns of features: their names, in the order in which they are stored, and what each means."""

RELIABILITY_COLUMNS = {
    "reliability": "mean reliability code of the valid pixels, 1..255; 0 where none is valid",
    "reliability_p1": "reliability code that 1% of the valid pixels do not exceed",
    "reliability_p5": "reliability code that 5% of the valid pixels do not exceed",
    "reliability_p10": "reliability code that 10% of the valid pixels do not exceed",
    "valid": "share of the pixels that have a label, 0..1",
}

DEPTH_COLUMNS = {
    "depth_range": "(near - far) / (near + far) of the 95th and 5th percentile of inverse depth, 0..1; 0 = one depth",
    "flatness": "1 - what is left of depth_range without the plane that fits best, 0..1; 1 = one plane",
    "sky": "share of the valid pixels more than 50 times as far as the nearest 2%, 0..1: sky, and what is as far",
    "edges": "share of the valid pixels where inverse depth jumps by more than 10% of its median, 0..1",
}

IMAGE_COLUMNS = {
    "sharpness": "share of the differences between neighbours that a blur takes away, 0..1; a blurred image is low",
    "detail": "standard deviation of luma within 1 to 4 pixels, in levels of 255; walls and black images are near 0",
    "text": "finest detail over coarser detail; pages of text are above 2.85, photos seldom",
    "luma": "mean luma, 0..1",
    "dark": "share of the pixels with luma under 16 of 255, 0..1",
    "bright": "share of the pixels with luma from 250 of 255, 0..1",
    "colourfulness": "as Hasler and Süsstrunk (2003): 0 = grey, 15 slightly, 45 quite, 109 extremely colourful",
}

LABEL_COLUMNS = RELIABILITY_COLUMNS | DEPTH_COLUMNS
"""What is made of the label: depth and reliability."""

COLUMNS = LABEL_COLUMNS | IMAGE_COLUMNS
"""All of them, by name, with what each means."""
