"""What a job is: frozen records and pure decisions, without I/O, clock or loop."""
