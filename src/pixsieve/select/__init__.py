"""Selection: which samples stay, and in which order."""
