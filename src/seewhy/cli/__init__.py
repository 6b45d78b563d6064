"""The command line: `seewhy IMAGES` and its subcommands. `main` is the entry point; flags are generated from options classes."""
