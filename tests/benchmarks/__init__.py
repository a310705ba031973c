"""Measured speed. ``make bench`` runs everything here; nothing in the tests is timed."""
