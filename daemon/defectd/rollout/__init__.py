"""Over-the-air rollout of a model: from a signed command to a committed bundle, or back to the one before."""
