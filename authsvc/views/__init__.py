"""One blueprint a subject; beside each, the operations that openapi.yaml lists."""
