"""Watching what deployments see: the latest images' statistics, tested again and again against the model's training domain."""
