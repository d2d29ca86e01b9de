"""What the services' pages for people share: one style, one way to draw, small pictures."""
