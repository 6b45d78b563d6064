"""The command line: `seewhy IMAGES` and its subcommands. `main` is the entry point; flags come from options classes."""
