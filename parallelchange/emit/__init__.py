"""From a plan to files that other tools run."""
