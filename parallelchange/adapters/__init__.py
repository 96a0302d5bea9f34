"""What speaks to the outside; the only place that imports its clients."""
