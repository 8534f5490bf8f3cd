"""Decisions of a realtime session, sans-I/O: codec, mailbox, failures, state machine."""
