"""Processes, connections and threads: gunicorn's master, and the HTTP server in its workers."""
