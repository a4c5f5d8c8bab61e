"""The `attengait` command."""
