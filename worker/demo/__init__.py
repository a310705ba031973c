"""The whole loop on one machine, for whoever wants to see it before connecting a PACS."""
