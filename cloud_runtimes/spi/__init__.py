"""What components and runtimes are written against."""
