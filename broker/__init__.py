"""An event broker: events come in, and each connection receives those that match and that its user may see."""

__version__ = "0.1.0"
