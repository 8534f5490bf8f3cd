"""What happens when something fails: real processes, real servers, real faults."""
