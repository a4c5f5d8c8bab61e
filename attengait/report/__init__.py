"""Pictures for people to look at: contact sheets of stores."""
