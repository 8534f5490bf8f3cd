"""The words everyone speaks: every body, claim and message, their limits and their error codes."""
