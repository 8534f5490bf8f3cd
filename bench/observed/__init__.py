"""What is put on the path of processes that are watched from inside."""
