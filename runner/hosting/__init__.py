"""Apps in processes of their own: what runs in such a process, and the gateway's side of it."""
