"""The one endpoint: inference, deployments, pipelines."""
