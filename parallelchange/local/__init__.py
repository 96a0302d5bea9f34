"""Real servers on one machine, from wheels: PostgreSQL, Envoy, and both versions of an app."""
