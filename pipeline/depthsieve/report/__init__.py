"""Pictures and pages that show what is in a store."""

from depthsieve.report.sheet import Panels, contact_sheet, label_panels

__all__ = ["Panels", "contact_sheet", "label_panels"]
