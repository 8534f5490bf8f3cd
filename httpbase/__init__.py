"""What both HTTP services have in common: the one error body, log lines, and the pages that explain a service."""
