"""Who may call what, and how much: identities, roles, limits, quotas."""
