"""The rules of the platform, one file a domain; no web framework, no SQL dialect."""
