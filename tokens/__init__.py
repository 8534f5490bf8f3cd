"""The only code that signs or verifies a token: no sockets, no environment, the clock is a parameter."""
