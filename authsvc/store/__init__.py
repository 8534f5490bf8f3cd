"""Where everything is kept: SQLite or PostgreSQL, and Redis for counts that may be forgotten."""
