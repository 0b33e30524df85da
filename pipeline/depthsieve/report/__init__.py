"""Pictures and pages that show what is in a store."""

from depthsieve.report.sheet import contact_sheet, label_panels

__all__ = ["contact_sheet", "label_panels"]
