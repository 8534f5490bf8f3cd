"""Pictures kept as files for a while, for answers that carry links."""
