"""The rules of the broker as plain values and functions: no Trio, no clock, nothing but the standard library."""
