"""Orders that a service publishes to RabbitMQ, live in their customers' browsers."""
