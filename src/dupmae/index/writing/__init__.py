"""How an index comes about and changes: build, add, delete, compact."""
