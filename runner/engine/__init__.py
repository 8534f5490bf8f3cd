"""The engine: a bundle in, pictures out. No torch; the gateway talks to it through `client` alone."""
