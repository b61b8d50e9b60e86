"""Commands about recordings and files: info, convert, sync."""
