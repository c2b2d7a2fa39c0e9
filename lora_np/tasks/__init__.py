"""Work with your own files: fine-tune, predict, generate, mix, merge, export, import, inspect."""
