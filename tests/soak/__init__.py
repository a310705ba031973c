"""Long proofs that nothing is lost. ``make soak`` runs them and writes docs/reliability.md."""
