"""HTTP in, tokens out: API keys, signing keys and the endpoints that mint short-lived tokens."""
