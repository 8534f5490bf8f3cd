"""Sockets in, pictures out: the gateway, the realtime protocol, the engine and the exporter."""
