"""Fuzzing of what parses strangers' bytes: ``python -m tests.fuzz``, which writes docs/fuzzing.md."""
