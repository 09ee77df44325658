"""A run: its configuration, what is built of it, and what is done with its weights."""
