"""What every Oteo service stands on: settings, server, operations, jobs, artifacts, datasets, images, security, telemetry."""
