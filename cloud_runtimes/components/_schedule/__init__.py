"""Jobs and their runs, in rows and in documents."""
