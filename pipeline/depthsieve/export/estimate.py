"""What an export will take on the disk."""

from collections.abc import Sequence

from depthsieve.export.writing import Writer

TRIED = 6
"""Images that are encoded to tell what all will take."""


def estimate_bytes(writer: Writer, images: Sequence[tuple[str, str]]) -> int:
    """About what these images, ids and paths, will take: the bytes a pixel of some of them, and photos as they are."""
    written = pixels = 0
    for at in range(min(TRIED, len(images))):
        made = writer.encoded(*images[at * len(images) // min(TRIED, len(images))])
        if isinstance(made, tuple):
            item, encoded = made
            pixels += item.depth_HW.size
            written += writer.target.weigh(item, encoded)
    entries = [writer.entry(image_id) for image_id, _ in images]
    at_source = writer.reader.resolution == "source"
    shapes = [one.source_shape if at_source else one.label_shape for one in entries]
    copied = writer.target.links and writer.link == "copy"
    photos = sum(one.source_size for one in entries) if copied else 0
    return round(written / max(pixels, 1) * sum(height * width for height, width in shapes)) + photos


def size_words(count: float) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
