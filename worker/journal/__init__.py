"""The journal: small objects are durable in it before they have files of their own."""
