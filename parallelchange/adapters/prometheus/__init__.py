"""Success rate and latency from a Prometheus that knows the mesh or the ingress controller."""
