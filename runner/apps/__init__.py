"""Apps and what they are made of: endpoints, and how a path finds one."""
