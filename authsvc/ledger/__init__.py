"""What happened and what it adds up to: the audit log and usage."""
