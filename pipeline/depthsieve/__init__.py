"""Offline pseudo-label generation and curation for monocular depth.

>>> import depthsieve
>>> summary = depthsieve.label("photos", "labels", teacher="tiny")   # doctest: +SKIP
>>> store = depthsieve.open_store("labels")                          # doctest: +SKIP
>>> dataset = depthsieve.PseudoLabelDataset("labels", drop=0.10)     # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from depthsieve.core.version import __version__ as __version__

if TYPE_CHECKING:
    from depthsieve.core.stopping import Stop
    from depthsieve.curation.curating import CurateSummary, curate
    from depthsieve.curation.settings import CurateSettings
    from depthsieve.evaluation.comparing import evaluate_labels
    from depthsieve.evaluation.result import Evaluation
    from depthsieve.evaluation.settings import EvaluateSettings
    from depthsieve.export.run import export_labels
    from depthsieve.export.settings import ExportSummary
    from depthsieve.jobs.calibrate.run import CalibrateSummary, calibrate
    from depthsieve.jobs.fuse.run import FuseSummary, fuse
    from depthsieve.jobs.importing.run import ImportSummary, import_labels
    from depthsieve.jobs.label import label, plan
    from depthsieve.jobs.layers.clips import AlignClipsSummary, align_clips
    from depthsieve.jobs.layers.features import FeaturesSummary, add_features
    from depthsieve.jobs.layers.reliability import RecalibrateSummary, recalibrate
    from depthsieve.jobs.verify.repair import VerifyReport, verify
    from depthsieve.planning.summary import LabelSummary, PlanSummary
    from depthsieve.report.view import View, view
    from depthsieve.report.write import ReportSummary, report_labels
    from depthsieve.sources.manifest_scan import ScanSummary, scan
    from depthsieve.sources.recipes import Recipe, load_recipe, recipe_names
    from depthsieve.store import Label, Store, open_store
    from depthsieve.store.status import StoreStatus, status
    from depthsieve.teachers import load_teacher
    from depthsieve.teachers.converting import ConvertSummary, convert_weights
    from depthsieve.training import PseudoLabelDataset
    from depthsieve.training.losses import GradientMatchingLoss, ScaleShiftInvariantLoss, TrimmedLoss

__all__ = [
    "AlignClipsSummary",
    "CalibrateSummary",
    "ConvertSummary",
    "CurateSettings",
    "CurateSummary",
    "EvaluateSettings",
    "Evaluation",
    "ExportSummary",
    "FeaturesSummary",
    "FuseSummary",
    "GradientMatchingLoss",
    "ImportSummary",
    "Label",
    "LabelSummary",
    "PlanSummary",
    "PseudoLabelDataset",
    "RecalibrateSummary",
    "Recipe",
    "ReportSummary",
    "ScaleShiftInvariantLoss",
    "ScanSummary",
    "Stop",
    "Store",
    "StoreStatus",
    "TrimmedLoss",
    "VerifyReport",
    "View",
    "add_features",
    "align_clips",
    "calibrate",
    "convert_weights",
    "curate",
    "evaluate_labels",
    "export_labels",
    "fuse",
    "import_labels",
    "label",
    "load_recipe",
    "load_teacher",
    "open_store",
    "plan",
    "recalibrate",
    "recipe_names",
    "report_labels",
    "scan",
    "status",
    "verify",
    "view",
]

_HOMES = {
    "curation.curating": ("CurateSummary", "curate"),
    "curation.settings": ("CurateSettings",),
    "sources.recipes": ("Recipe", "load_recipe", "recipe_names"),
    "evaluation.comparing": ("evaluate_labels",),
    "evaluation.result": ("Evaluation",),
    "evaluation.settings": ("EvaluateSettings",),
    "export.run": ("export_labels",),
    "export.settings": ("ExportSummary",),
    "jobs.calibrate.run": ("CalibrateSummary", "calibrate"),
    "jobs.fuse.run": ("FuseSummary", "fuse"),
    "training": ("PseudoLabelDataset",),
    "training.losses": ("GradientMatchingLoss", "ScaleShiftInvariantLoss", "TrimmedLoss"),
    "sources.manifest_scan": ("ScanSummary", "scan"),
    "report.write": ("ReportSummary", "report_labels"),
    "planning.summary": ("LabelSummary", "PlanSummary"),
    "jobs.layers.reliability": ("RecalibrateSummary", "recalibrate"),
    "jobs.layers.clips": ("AlignClipsSummary", "align_clips"),
    "jobs.layers.features": ("FeaturesSummary", "add_features"),
    "jobs.verify.repair": ("VerifyReport", "verify"),
    "jobs.importing.run": ("ImportSummary", "import_labels"),
    "jobs.label": ("label", "plan"),
    "report.view": ("View", "view"),
    "core.stopping": ("Stop",),
    "store": ("Label", "Store", "open_store"),
    "store.status": ("StoreStatus", "status"),
    "teachers": ("load_teacher",),
    "teachers.converting": ("ConvertSummary", "convert_weights"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and transformers take seconds, `import depthsieve` none."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"depthsieve.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'depthsieve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
