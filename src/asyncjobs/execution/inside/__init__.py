"""What runs in templates and in jobs' processes, loaded there by path: the standard library alone, and little of it."""
