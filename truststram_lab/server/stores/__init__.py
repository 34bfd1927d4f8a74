"""What the platform keeps: tables, transactions, events to send, and files by content."""
