"""The moving parts, in Trio: dispatcher, connections, queues. No sockets and no protocol library."""
