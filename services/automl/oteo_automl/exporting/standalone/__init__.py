"""Scripts that are written beside exported models, as they are; they import nothing of Oteo."""
