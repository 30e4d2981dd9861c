"""RabbitMQ: a Trio client for AMQP 0-9-1, and the source of events that is built on it.

The client reads alone, from the bottom up: `errors`, `url`, `codec` (bytes and frames, no I/O), `outgoing` (what waits
to be written), `consuming`, `confirms`, `channel`, `connection`. `topology` and `source` are what the broker makes of
it.
"""
