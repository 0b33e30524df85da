"""Pictures and pages that show what is in a store: for people, not for programs."""

from depthsieve.report.sheet import Panels, contact_sheet, label_panels

__all__ = ["Panels", "contact_sheet", "label_panels"]
