"""The rollout: observe, decide, advance."""
