"""Fetches pictures from addresses that users name, and reaches nothing that users should not."""
