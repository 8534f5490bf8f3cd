"""How a request gets in: WebSocket handshake and framing, access, the realtime door, health, the reference."""
