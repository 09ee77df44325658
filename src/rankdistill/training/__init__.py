"""The loop, and what goes with it: state, steps, update rules, checkpoints, teacher cache, loggers."""
