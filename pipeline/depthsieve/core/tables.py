"""The tables that planning, sources and stores hand to each other: their columns, each defined once."""

import pyarrow as pa

PLAN_SCHEMA = pa.schema(
    [
        ("action", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int32()),
        ("id", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int8()),
        ("label_height", pa.int32()),
        ("label_width", pa.int32()),
    ]
)
"""The rows of a plan: one per image that a generation labels."""

IMAGES_SCHEMA = pa.schema(
    [PLAN_SCHEMA.field(name) for name in ("id", "size", "mtime_ns", "width", "height", "orientation")]
)
"""What is known of an image before it is planned: the fields of :class:`depthsieve.core.records.ImageRecord`."""

CAMERA_SCHEMA = pa.schema([*((name, pa.float64()) for name in ("fx", "fy", "cx", "cy")), ("camera", pa.string())])
"""The camera of an image, in pixels of the upright source, and its :data:`~depthsieve.core.cameras.Origin`; null where
it is not known. Additional columns of a plan where a user gave cameras and a teacher takes them."""

REJECTED_SCHEMA = pa.schema(
    [("id", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("reason", pa.string())]
)
"""Files that are rejected: the fields of :class:`depthsieve.core.records.RejectedImage`."""

REMOVED_SCHEMA = pa.schema([("id", pa.string())])
"""Images that leave the store."""


CHANGED = pa.field("changed", pa.bool_())
"""Whether an image is known, but with another size or time. Null for one that is passed on as it is known."""

OTHER_CONTENT = pa.field("content", pa.bool_())
"""Whether only the content of an image has changed, and neither its size nor its time."""
