"""Alembic's folder: one change per migration."""
