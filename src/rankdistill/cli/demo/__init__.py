"""The demonstration on real digits."""
