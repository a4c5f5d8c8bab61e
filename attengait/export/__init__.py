"""A store as other programs' files."""
