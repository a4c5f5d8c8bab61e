"""Pictures of what there is: contact sheets."""
