"""Classes that a user taught by a few examples: the prototypes file, and what it says of recordings."""
