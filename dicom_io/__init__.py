"""DICOM in and out: association, file, pixels, eligibility, report. Knows nothing of models or databases."""
