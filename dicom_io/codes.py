"""Coded concepts that our objects carry.

Every code is from a scheme that readers and validators know; a private ``99…`` scheme makes dciodvfy warn.
Concepts of PS3.16 that pydicom already names (``pydicom.sr.codedict.codes.DCM``) are used from there.
"""

from enum import Enum

from pydicom.sr.coding import Code


class Condition(Enum):
    """What a class of the classifier stands for."""

    COVID_19 = Code("840544004", "SCT", "Suspected COVID-19")
    """A situation, not the disorder 840539006: a radiograph raises the suspicion, a laboratory confirms the disease."""
    PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
    """Pneumonia of whatever cause."""
    NORMAL = Code("408573005", "SCT", "Imaging result normal")
    """No sign of either (CID 3209)."""


class Presence(Enum):
    """Whether a condition was found (CID 240, 241). A negative result is written, since a missing item says nothing."""

    PRESENT = Code("52101004", "SCT", "Present")
    """The probability reached the operating threshold of its class."""
    ABSENT = Code("272519000", "SCT", "Absent")
    """It did not."""
    UNDETERMINED = Code("373068000", "SCT", "Undetermined")
    """It did not, on an image of which the classifier is not sure: that is no negative result."""


class Assessment(Enum):
    """How soon somebody should look: CID 7035 "Actionable Finding Classification", and normal or not known (CID 222)."""

    ACTIONABLE_WITHIN_MINUTES = Code("RID49480", "RADLEX", "ACR Category 1 Actionable Finding")
    """Our triage level *urgent*."""
    ACTIONABLE_WITHIN_HOURS = Code("RID49481", "RADLEX", "ACR Category 2 Actionable Finding")
    """Our triage level *high*."""
    ACTIONABLE_WITHIN_DAYS = Code("RID49482", "RADLEX", "ACR Category 3 Actionable Finding")
    """Something was flagged that can wait for the usual order of reading."""
    NORMAL = Code("17621005", "SCT", "Normal")
    """Nothing was flagged. It is no rule-out, and lowers no priority that the study already has."""
    UNDETERMINED = Code("371934000", "SCT", "Undetermined")
    """Nothing was flagged, and of some image the classifier is not sure."""


class Anatomy(Enum):
    """Where a finding is."""

    LUNG = Code("39607008", "SCT", "Lung")
    """Site of every finding: the classifier sees the whole image and does not say which lung."""


class View(Enum):
    """Projection of a frontal chest radiograph (CID 4010), by the defined terms of View Position (0018,5101)."""

    PA = Code("272479007", "SCT", "postero-anterior")
    """The X-rays enter at the back: standing patients."""
    AP = Code("399348003", "SCT", "antero-posterior")
    """The X-rays enter at the front: bedside images, whose heart looks larger."""


class Document(Enum):
    """Concepts of the document itself."""

    IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
    """Procedure reported. Chest radiography has no code in CID 100, and PixelMed's validator takes no other."""
    QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
    """Container for what is said of the study as a whole (TID 1500 row 12)."""
    PIXELS = Code("{pixels}", "UCUM", "Pixels")
    """Unit of rows and columns (TID 1602)."""


class Heading(Enum):
    """Concepts that a reader of a report in words sees before each part of it; `Wording.headings` has them in his language."""

    REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
    """Title of the document (CID 7000)."""
    FINDINGS = Code("59776-5", "LN", "Findings")
    """Heading (CID 7001)."""
    IMPRESSIONS = Code("19005-8", "LN", "Impressions")
    """Heading (CID 7001)."""
    PROCEDURES = Code("55111-9", "LN", "Current Procedure Descriptions")
    """Heading (CID 7001) of what was done: the analysis."""
    FINDING = Code("121071", "DCM", "Finding")
    """A paragraph on one image (CID 7002)."""
    IMPRESSION = Code("121073", "DCM", "Impression")
    """The answer for the study (CID 7002)."""
    CONCLUSION = Code("121077", "DCM", "Conclusion")
    """What the answer may not be used for (CID 7002)."""
    PROCEDURE = Code("121065", "DCM", "Procedure Description")
    """What analysed the images, and when (CID 7002)."""
    PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
    """Of what analysed them (TID 4019)."""
    KEY_OBJECT = Code("113000", "DCM", "Of Interest")
    """Title of a selection of key images (CID 7010)."""
    KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")
    """Why they were selected (TID 2010)."""
