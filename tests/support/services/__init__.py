"""Real servers that tests start: databases, Redis, stand-ins for Amazon's services, and a network that fails."""
