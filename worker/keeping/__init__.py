"""Keeping: what lies on disk and what the database says of it stay in step."""
