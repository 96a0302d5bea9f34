"""What speaks to a Kubernetes API server: the only place that imports its client."""
