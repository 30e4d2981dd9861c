"""Where events come from: one module a source, each written on `publish()` and nothing else of the broker."""
