"""What makes runs resumable and shared between processes and machines."""
