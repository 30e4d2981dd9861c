"""Where the outside begins: one module for each library or system that the broker speaks to."""
