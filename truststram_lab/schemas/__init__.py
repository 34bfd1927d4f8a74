"""The shapes on the wire: one file a domain, plain pydantic, no behaviour of the platform."""
