"""The demo site: a login, a route that mints tokens through authsvc, and the playground page."""
