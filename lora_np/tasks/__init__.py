"""What the commands do with a user's own files: teach, predict, write, mix, merge, export, import, inspect."""
