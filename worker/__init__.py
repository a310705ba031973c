"""The worker beside the PACS: receives studies, has them classified, returns the reports."""
