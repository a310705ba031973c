"""Classifiers of chest radiographs: networks, their training and their use. Knows nothing of DICOM or databases."""
