"""Pictures for people to look at: contact sheets of stores, and what a network attends to."""
