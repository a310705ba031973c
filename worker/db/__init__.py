"""The database: what was received, decided, made and sent. Rows are the queue."""
